//! Cron expressions in their zones, and the slots they make.

/// A cron expression in its zone.
#[derive(Debug, Clone)]
pub struct Schedule;
