//! A store of the payments alone, made from the payment journal when nothing else can be used:
//! `bursar store rebuild --payments-only`.
//!
//! What it makes knows every payment, so none is made twice: one that is asked for again is
//! answered from its record, and one that was being sent is looked up. Runs, events, slots and the
//! state of scripts are not in the payment journal and are lost; the first start says so again.
//! Whatever can be repaired without losing them is repaired by `rebuild` first.

use std::path::Path;

use super::copy::sync_tree;
use super::error::{Damage, OpenError, Remedy};
use super::index::wait_for_release;
use super::layout::Layout;
use super::lock::Lock;
use super::open::find_damaged_store;
use super::payment_journal::{cut_torn, remake};
use super::rebuild::{Plan, RebuildError, Rebuilt, Repair, plan, remove_attempts};
use crate::telemetry::Telemetry;

/// What a rebuild from the payment journal came to.
#[derive(Debug)]
pub struct RebuiltPayments {
    /// The store, and what was done to it.
    pub rebuilt: Rebuilt,
    /// What was made of the payment journal; `None` if the store could be repaired whole.
    pub made: Option<Made>,
}

/// What was made of the payment journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Made {
    /// Lines read.
    pub lines: u64,
    /// Payments they are.
    pub payments: u64,
    /// Of these, how many are not final: the next start looks them up.
    pub open: u64,
}

/// Makes the store in `dir`, which no process may have open, whole again; if that cannot be done
/// with what is left of it, makes one that knows the payments of its payment journal and nothing
/// else. What is replaced is kept beside it. Can be interrupted and repeated at any time.
///
/// # Errors
/// [`RebuildError`]; nothing was changed.
pub fn rebuild_payments(
    dir: &Path,
    telemetry: &Telemetry,
) -> Result<RebuiltPayments, RebuildError> {
    let layout = find_damaged_store(dir)?;
    let lock = Lock::take(&layout)?;
    let (plan, made) = match plan(&layout) {
        Ok(plan) => (plan, None),
        Err(refusal) if is_lost(&refusal) => {
            let (plan, made) = plan_payments(&layout)?;
            cut_torn(&layout).map_err(OpenError::io("write", &layout.payment_journal()))?;
            (plan, Some(made))
        }
        Err(refusal) => return Err(refusal),
    };
    let rebuilt = plan.carry_out(layout, lock, telemetry)?;
    Ok(RebuiltPayments { rebuilt, made })
}

/// Whether a rebuild was refused because something is gone.
fn is_lost(refusal: &RebuildError) -> bool {
    match refusal {
        RebuildError::Incomplete { .. } => true,
        RebuildError::Failed(OpenError::Damaged(Damage { remedy, .. })) => {
            *remedy == Remedy::RebuildPayments
        }
        RebuildError::Failed(
            OpenError::Locked(_) | OpenError::Newer { .. } | OpenError::Io { .. },
        ) => false,
    }
}

fn plan_payments(layout: &Layout) -> Result<(Plan, Made), RebuildError> {
    let attempt = layout.attempt(0);
    let remade = match remake(layout, &attempt) {
        Ok(remade) => remade,
        Err(error) => {
            remove_attempts(layout)?;
            return Err(error.into());
        }
    };
    wait_for_release(&attempt)
        .and_then(|()| sync_tree(&attempt))
        .map_err(OpenError::io("sync", &attempt))?;
    let mut plan = Plan {
        repairs: vec![Repair::NoteLost],
        mark: remade.mark,
    };
    let (attempt, index) = (attempt, layout.index());
    plan.keep_aside(layout, index.clone())?;
    plan.repairs.push(Repair::PutIndex { attempt, index });
    plan.keep_aside(layout, layout.journal())?;
    plan.repairs.extend([
        Repair::BeginJournal(plan.mark.sequence),
        Repair::NoteCheckpoint,
        Repair::NoteFormat,
    ]);
    let made = Made {
        lines: remade.lines,
        payments: remade.payments,
        open: remade.open,
    };
    Ok((plan, made))
}
