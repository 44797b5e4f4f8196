//! What policy would say of a batch: whether people must approve it as a whole, under which terms,
//! and how it stands to the limits. Nothing is reserved; each payment is decided again when it is
//! sent.

use crate::domain::payment::Payment;
use crate::domain::plan::ASKED_BY_SCRIPT;
use crate::domain::policy::{Decision, Policy, Proposal, Terms, Verdict};
use crate::runner::payments::PaymentRequest;
use crate::runner::world::World;
use crate::scripting::effects::Stop;
use crate::store::ReadError;

/// What policy would say of a batch.
#[derive(Debug, Default)]
pub(super) struct Foreseen {
    /// What its approval takes for policy; `None` when policy leaves none of it to people.
    terms: Option<Terms>,
    /// For people: what would be refused, and what is left of each limit.
    pub(super) limits: Vec<String>,
}

impl Foreseen {
    /// What the approval takes: all that policy wants, and what a script that asks for it does.
    pub(super) fn terms(&self, asked_by_script: bool) -> Terms {
        match (self.terms, asked_by_script) {
            (Some(terms), true) => terms.and(ASKED_BY_SCRIPT),
            (Some(terms), false) => terms,
            (None, _) => ASKED_BY_SCRIPT,
        }
    }
}

impl World {
    /// Whether policy leaves payments of a batch to people, who then decide about all of it.
    pub(in crate::runner) fn policy_asks_people(
        &self,
        requests: &[PaymentRequest],
    ) -> Result<bool, Stop> {
        if !self.context.policy.policy().asks_people() {
            return Ok(false);
        }
        Ok(self.foreseen(requests)?.terms.is_some())
    }

    /// What policy would say of the payments that are not known yet, in their order, each counting
    /// for those behind it.
    pub(super) fn foreseen(&self, requests: &[PaymentRequest]) -> Result<Foreseen, Stop> {
        let proposals = self.proposals(requests);
        let proposals = proposals.map_err(|error| self.unreadable(&error))?;
        let foreseen = self.context.policy.foresee(&proposals);
        let (policy, decisions) = foreseen.map_err(|error| self.unreadable(&error))?;
        let mut found = Foreseen::default();
        for (proposal, decision) in proposals.iter().zip(&decisions) {
            match decision.verdict {
                Verdict::Allow => {}
                Verdict::Refuse => found.limits.push(format!(
                    "`{}` would be refused: {}",
                    proposal.foreign_id,
                    decision.because()
                )),
                Verdict::Approve(terms) => {
                    found.terms = Some(found.terms.map_or(terms, |others| others.and(terms)));
                }
            }
        }
        found.limits.extend(headroom(&policy, &decisions));
        Ok(found)
    }

    fn proposals(&self, requests: &[PaymentRequest]) -> Result<Vec<Proposal>, ReadError> {
        let now = self.context.clock.now();
        let mut proposals = Vec::with_capacity(requests.len());
        for request in requests {
            if self.context.payments.find(&request.foreign_id)?.is_none() {
                let planned = Payment::planned(
                    request.foreign_id.clone(),
                    request.content.clone(),
                    request.origin.clone(),
                    now,
                );
                proposals.push(Proposal::of(&planned, request.batch));
            }
        }
        Ok(proposals)
    }
}

/// How each limit stands after the last payment that it speaks of.
fn headroom(policy: &Policy, decisions: &[Decision]) -> Vec<String> {
    let limits = policy.limits.iter().filter_map(|limit| {
        let reasons = decisions
            .iter()
            .rev()
            .flat_map(|decision| &decision.reasons);
        let mut last = reasons.filter(|reason| reason.matches && reason.name == limit.name);
        last.next()
            .map(|last| format!("`{}`: {}", limit.name, last.text))
    });
    limits.collect()
}
