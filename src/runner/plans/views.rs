//! Batches as people are shown them. Reads only.

use std::ops::ControlFlow;

use serde_json::{Value, json};

use super::contents;
use crate::domain::approval::{deadline, standing};
use crate::domain::clock::{Timestamp, shown};
use crate::domain::plan::{Contents, Plan, PlanState};
use crate::runner::filter::{Filter, newest};
use crate::runner::handle::Handle;
use crate::runner::views::ViewError;
use crate::store::ReadError;
use crate::store::schema::{PAYMENTS, PLANS, PLANS_BY_TIME};

impl Handle {
    /// Batches, newest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn batches(&self, filter: &Filter) -> Result<Value, ViewError> {
        let store = &self.context.store;
        let mut rows = Vec::new();
        let end: Option<(Timestamp, String)> = filter.until.map(|at| (at, String::new()));
        newest(store, &PLANS_BY_TIME, end, |(at, id)| {
            if rows.len() >= filter.limit || filter.since.is_some_and(|since| *at < since) {
                return Ok(ControlFlow::Break(()));
            }
            if let Some(plan) = store.get(&PLANS, id)? {
                let handler = &plan.origin.handler;
                if filter.admits(plan.state.as_str(), &handler.script, &handler.name) {
                    rows.push(plan_row(&plan));
                }
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(Value::Array(rows))
    }

    /// One batch with everything in it, and what became of each payment.
    ///
    /// # Errors
    /// When there is none of that key, or the store cannot be read.
    pub fn batch(&self, id: &str) -> Result<Value, ViewError> {
        let missing = || ViewError::NotFound {
            what: "batch",
            id: id.to_owned(),
        };
        let context = &self.context;
        let plan = context.store.get(&PLANS, &id.to_owned())?;
        let plan = plan.ok_or_else(missing)?;
        let mut row = plan_row(&plan);
        let Some(object) = row.as_object_mut() else {
            return Ok(row);
        };
        let place = format!("{}:{}", plan.origin.file, plan.origin.line);
        object.insert("place".into(), json!(place));
        let Some(contents) = contents(context, &plan)? else {
            object.insert("damaged".into(), json!(true));
            return Ok(row);
        };
        object.insert("payments".into(), self.planned(&contents)?);
        object.insert("totals".into(), json!(contents.totals));
        object.insert("warnings".into(), json!(contents.warnings));
        object.insert("new_addresses".into(), json!(contents.new_addresses));
        object.insert("limits".into(), json!(contents.limits));
        Ok(row)
    }

    fn planned(&self, contents: &Contents) -> Result<Value, ReadError> {
        let rows = contents.rows.iter().enumerate();
        rows.map(|(number, row)| {
            let payment = self.context.store.get(&PAYMENTS, &row.foreign_id)?;
            let fields = row.content.fields();
            let field = |name: &str| fields.get(name).cloned().unwrap_or(Value::Null);
            Ok(json!({
                "row": number,
                "foreign_id": row.foreign_id,
                "currency": field("currency"),
                "amount": field("amount"),
                "convert_to": field("convert_to"),
                "amount_to": field("amount_to"),
                "address": field("address"),
                "tag": field("tag"),
                "end_user_reference": field("end_user_reference"),
                "new_address": is_new(contents, &field("address")),
                "known": row.known,
                "status": payment.map(|payment| payment.state),
            }))
        })
        .collect()
    }
}

fn is_new(contents: &Contents, address: &Value) -> bool {
    let new = &contents.new_addresses;
    address
        .as_str()
        .is_some_and(|address| new.iter().any(|one| one == address))
}

fn plan_row(plan: &Plan) -> Value {
    let approvals: Vec<Value> = plan
        .approvals
        .iter()
        .map(|approval| json!({"by": approval.by, "at": shown(approval.at)}))
        .collect();
    let is_awaited = plan.state == PlanState::AwaitingApproval;
    let until = deadline(plan.created_at, &plan.terms);
    json!({
        "id": plan.id,
        "status": plan.state.as_str(),
        "hash": plan.hash,
        "rows": plan.rows,
        "amounts": plan.amounts,
        "script": plan.origin.handler.script,
        "handler": plan.origin.handler.name,
        "run": plan.origin.run,
        "created_at": shown(plan.created_at),
        "approve_until": is_awaited.then(|| shown(until)),
        "approvals": approvals,
        "approved_by": standing(&plan.approvals, &plan.hash, None).len(),
        "quorum": plan.terms.quorum.max(1),
        "decided_at": plan.decided_at.map(shown),
        "reason": plan.reason,
    })
}
