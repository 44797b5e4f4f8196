//! `GET /transactions/info`: the only look-up of the contract.
//!
//! By `foreign_id` it finds withdrawals only, as the older documentation says; the newer one does
//! not repeat the restriction, so this is the harder of the two readings.

use std::sync::Arc;

use serde_json::{Value, json};

use super::Shared;
use super::addresses::Deposit;
use super::exchanges::Exchange;
use super::ledger::{State, Unique};
use super::wire::{Answer, Fields, Refusal, set};
use super::withdrawals::Withdrawal;

/// Answers with the bare document, shaped like a callback.
pub(super) fn info(shared: &Arc<Shared>, body: &Value) -> Result<Answer, Refusal> {
    const NAMES: [&str; 3] = ["id", "foreign_id", "txid"];
    let mut fields = Fields::read(body, &NAMES)?;
    let given = NAMES
        .iter()
        .filter(|name| fields.get(name).is_some())
        .count();
    if given != 1 {
        fields.wrong("id", "Exactly one of id, foreign id and txid is required.");
    }
    let id = fields.get("id");
    if id.is_some_and(|id| !id.is_u64()) {
        fields.wrong("id", "The id must be an integer.");
    }
    let foreign_id = fields.optional_text("foreign_id", 255);
    let txid = fields.optional_text("txid", 255);
    fields.finish()?;
    let state = shared.state();
    let id = id
        .and_then(Value::as_u64)
        .or_else(|| state.find(Unique::Withdrawal, &foreign_id?))
        .or_else(|| state.by_txid(&txid?))
        .ok_or(Refusal::NotFound)?;
    if let Some(withdrawal) = state.withdrawals.get(&id) {
        let (operation, foreign_id) = (withdrawal.operation(), withdrawal.foreign_id());
        if shared
            .faults()
            .lookup_is_blind(operation, foreign_id, withdrawal.age())
        {
            return Err(Refusal::NotFound);
        }
    }
    let mut document = state.document(id).ok_or(Refusal::NotFound)?;
    // Internal statuses are shown by the public one they map to.
    if document.get("status") == Some(&json!("processing")) {
        set(&mut document, "status", json!("not_confirmed"));
    }
    Ok(Answer::read(document))
}

impl State {
    fn by_txid(&self, txid: &str) -> Option<u64> {
        let withdrawal = self
            .withdrawals
            .iter()
            .find(|(_, withdrawal)| withdrawal.txid() == Some(txid));
        let deposit = self.deposits.iter().find(|(_, d)| d.txid() == txid);
        withdrawal
            .map(|(id, _)| *id)
            .or_else(|| deposit.map(|(id, _)| *id))
    }

    fn document(&self, id: u64) -> Option<Value> {
        let withdrawal = self.withdrawals.get(&id).map(Withdrawal::document);
        withdrawal
            .or_else(|| self.exchanges.get(&id).map(Exchange::document))
            .or_else(|| self.deposits.get(&id).map(Deposit::document))
    }
}
