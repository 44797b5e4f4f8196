//! The real binary, killed: at every crash point, and at any moment.
//!
//! Whatever was going on, after the next start every payment has been executed exactly once, every
//! callback that was answered with 200 has been handled exactly once, every slot has fired once,
//! and every run has ended.
//!
//! One exception, by design. A payment is marked as being sent on disk before its first byte
//! leaves. A daemon that dies between the two finds the mark at its next start and cannot know on
//! which side of the send it died; sending again could pay twice. So it asks the gateway, and as
//! long as the gateway does not know the payment, it is reported as `unknown` and later as `held`:
//! executed at most once, never resent, and never claimed to have been paid. Wherever a payment
//! may be in that place when the daemon dies, these tests allow such a payment, at most as many as
//! were under way, and only if it is reported so.
//!
//! A killed process leaves what it wrote to the system, synced or not: these tests prove the order
//! of steps, not that the disk has them.

mod acknowledged;
mod chance;
mod disk;
mod kills;
mod machine;
mod points;
mod races;
mod rebuilt;
mod scene;
mod unwritten;
