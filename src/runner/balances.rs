//! Compares what is on the account with what the ledger explains, every few minutes. Money that
//! leaves by other ways than through here shows as a drop that nothing explains.
//!
//! # Design
//! It looks for drops only, and takes the side of the ledger wherever the gateway does not say when
//! it debits: every payment that was open at the reading before, and every one made since, may have
//! been debited in between. So what leaves by other ways can hide behind open payments of the same
//! size for as long as these are open, and payment requests, whose callbacks do not say what is
//! credited, are not counted as money that came in. Fees and rates are not known beforehand; they
//! are covered by a tolerance. It decides nothing and stops nothing: it tells people.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rust_decimal::Decimal;
use serde_json::{Map, Value, json};

use super::alerts::{Alert, raise};
use super::ticket::Started;
use super::{Context, events};
use crate::domain::clock::{Timestamp, shown};
use crate::domain::id::ForeignId;
use crate::domain::money::{decimal_from_json, json_from_decimal};
use crate::domain::operation::{Effect, Operation};
use crate::domain::payment::{Payment, State};
use crate::gateway::{Disposition, prepare};
use crate::store::schema::{
    BALANCE_READING, BalanceReading, EVENTS, EVENTS_BY_ORDER, OPEN_PAYMENTS, PAYMENTS,
    PAYMENTS_BY_TIME,
};
use crate::store::{Changes, CommitError, Order, Range, ReadError, Store};

/// Of what payments may have taken, so much again may be fees: a tenth.
const FEES: Decimal = Decimal::from_parts(1, 0, 0, false, 1);

/// After a start, what was under way goes on first.
const FIRST: Duration = Duration::from_secs(2);

/// Payments that are read in one go: about as long as an answer to a request takes.
const AT_ONCE: usize = 32;

/// Sums by currency.
type Sums = BTreeMap<String, Decimal>;

/// Why balances could not be compared.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// The store cannot read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The store cannot write.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The gateway gave no balances.
    #[error("the gateway gives no balances: {0}")]
    Gateway(String),
}

/// What may have left the account, and the currencies in which nobody can say how much.
#[derive(Debug, Default)]
struct Outgoing {
    sums: Sums,
    unclear: BTreeSet<String>,
}

/// Compares again and again until it is dropped; never when the period is zero.
pub(super) async fn run(context: Arc<Context>) {
    if context.balance_check_every.is_zero() {
        return;
    }
    tokio::time::sleep(FIRST).await;
    loop {
        if let Err(failure) = compare(&context).await {
            context.telemetry.balances_not_compared(&failure);
        }
        tokio::time::sleep(context.balance_check_every).await;
    }
}

/// Reads the balances once, and raises an alert for each drop that nothing explains since the
/// reading before. On disk with its alerts when this returns.
async fn compare(context: &Context) -> Result<(), Failure> {
    let store = &context.store;
    let before = store.get(&BALANCE_READING, &String::new())?;
    // In this order: what may be debited during the reading counts for this time and the next.
    let at = context.clock.now();
    let open = open(store).await?;
    let latest = store.keys(&EVENTS_BY_ORDER, &Range::all(), 1, Order::Descending)?;
    let order = latest.first().map_or(0, |(order, _)| *order);
    let balances = read(context).await?;
    let mut changes = Changes::new();
    let happening = context.waits.happening().await;
    let mut started = Started::default();
    if let Some(before) = &before {
        let incoming = incoming(context, before.order, order)?;
        let outgoing = outgoing(store, before).await?;
        for drop in drops(before, &balances, &incoming, &outgoing) {
            context
                .telemetry
                .balance_drop(&drop.currency, &drop.unexplained);
            let alert = Alert {
                what: "balance_drop",
                about: format!("{}:{}", drop.currency, context.firings.next_order()),
                at,
                cause: None,
                fields: drop.fields(before.at, at),
            };
            let runs = raise(&context.firings, alert, &happening, &mut changes);
            started.0.extend(runs.0);
        }
    }
    let reading = BalanceReading {
        at,
        order,
        balances: texts(&balances),
        open: texts(&open.sums),
        unclear: open.unclear,
    };
    changes.put(&BALANCE_READING, &String::new(), &reading);
    store.commit(changes).await?;
    drop(happening);
    context.dispatcher.enqueue(started);
    Ok(())
}

/// What is on the account, by currency.
async fn read(context: &Context) -> Result<Sums, Failure> {
    let prepared = prepare(Operation::ListAccounts, &json!({}))
        .map_err(|_| Failure::Gateway("the request cannot be made".into()))?;
    let accounts = match context.gateway.send(&prepared).await {
        Disposition::Accepted(accounts) => accounts,
        Disposition::Rejected(rejection) => return Err(Failure::Gateway(rejection.message)),
        Disposition::NotSent { reason } | Disposition::Unknown { reason, .. } => {
            return Err(Failure::Gateway(reason));
        }
    };
    let mut balances = Sums::new();
    for account in accounts.as_array().into_iter().flatten() {
        add(&mut balances, money(account, "balance", "currency"));
    }
    Ok(balances)
}

impl Outgoing {
    /// Counts what payments take from the account. There may be many: others have their turn in
    /// between.
    async fn add_all(
        &mut self,
        store: &Store,
        ids: impl Iterator<Item = &ForeignId>,
    ) -> Result<(), ReadError> {
        for (number, id) in ids.enumerate() {
            if number % AT_ONCE == 0 {
                tokio::task::yield_now().await;
            }
            if let Some(payment) = store.get(&PAYMENTS, id)? {
                self.add(&payment);
            }
        }
        Ok(())
    }

    /// Counts what a payment takes from the account.
    fn add(&mut self, payment: &Payment) {
        let nothing = matches!(payment.state, State::Refused | State::Rejected);
        if nothing || payment.content.operation.effect() != Effect::Pay {
            return;
        }
        let asked = payment.content.fields();
        let answer = payment.answer.as_ref().unwrap_or(&Value::Null);
        let taken = money(asked, "amount", "currency")
            .or_else(|| money(asked, "sender_amount", "sender_currency"))
            .or_else(|| money(answer, "sender_amount", "sender_currency"));
        let source = ["currency", "sender_currency"]
            .into_iter()
            .find_map(|name| asked.get(name)?.as_str());
        if taken.is_none() {
            self.unclear.extend(source.map(str::to_owned));
        }
        add(&mut self.sums, taken);
        add(&mut self.sums, money(answer, "fee_amount", "fee_currency"));
    }
}

/// What the open payments may take.
async fn open(store: &Store) -> Result<Outgoing, ReadError> {
    let keys = store.keys(&OPEN_PAYMENTS, &Range::all(), usize::MAX, Order::Ascending)?;
    let mut open = Outgoing::default();
    open.add_all(store, keys.iter()).await?;
    Ok(open)
}

/// What may have been debited since the reading before.
async fn outgoing(store: &Store, before: &BalanceReading) -> Result<Outgoing, ReadError> {
    let mut outgoing = Outgoing {
        sums: sums(&before.open),
        unclear: before.unclear.clone(),
    };
    let since = Range::all().since(&before.at);
    let made = store.keys(&PAYMENTS_BY_TIME, &since, usize::MAX, Order::Ascending)?;
    outgoing
        .add_all(store, made.iter().map(|(_, id)| id))
        .await?;
    Ok(outgoing)
}

/// What callbacks say has come in, among the events after `since` and up to `until`.
fn incoming(context: &Context, since: u64, until: u64) -> Result<Sums, ReadError> {
    let mut incoming = Sums::new();
    let after = Range::all().after(&(since, String::from(char::MAX)));
    let events = context
        .store
        .scan(&EVENTS_BY_ORDER, &after, usize::MAX, Order::Ascending)?;
    for ((order, key), kind) in events {
        let is_credit = matches!(
            kind.as_str(),
            "deposit.confirmed"
                | "deposit_exchange.confirmed"
                | "exchange.confirmed"
                | "invoice.confirmed"
        );
        if order > until || !is_credit {
            continue;
        }
        let Some(record) = context.store.get(&EVENTS, &key)? else {
            continue;
        };
        let event = events::value(&context.store, &record)?;
        let Some(received) = event.get("currency_received") else {
            continue;
        };
        let net = money(received, "amount_minus_fee", "currency");
        let is_net = net.is_some();
        let credited = net.or_else(|| money(received, "amount", "currency"));
        let currency = credited.as_ref().map(|(currency, _)| currency.clone());
        add(&mut incoming, credited);
        if !is_net {
            for fee in event
                .get("fees")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
            {
                let fee = money(fee, "amount", "currency")
                    .filter(|(of, _)| Some(of) == currency.as_ref())
                    .map(|(of, amount)| (of, -amount));
                add(&mut incoming, fee);
            }
        }
    }
    Ok(incoming)
}

/// A drop that nothing explains.
#[derive(Debug, PartialEq, Eq)]
struct Drop {
    currency: String,
    balances: (Decimal, Decimal),
    incoming: Decimal,
    outgoing: Decimal,
    unexplained: Decimal,
}

impl Drop {
    fn fields(&self, from: Timestamp, to: Timestamp) -> Map<String, Value> {
        Map::from_iter([
            ("currency".to_owned(), json!(self.currency)),
            ("from".to_owned(), json!(shown(from))),
            ("to".to_owned(), json!(shown(to))),
            ("before".to_owned(), json_from_decimal(self.balances.0)),
            ("after".to_owned(), json_from_decimal(self.balances.1)),
            ("came_in".to_owned(), json_from_decimal(self.incoming)),
            ("may_have_left".to_owned(), json_from_decimal(self.outgoing)),
            (
                "unexplained".to_owned(),
                json_from_decimal(self.unexplained),
            ),
        ])
    }
}

/// The drops beyond what may be fees. A currency in which nobody can say what left is not judged.
fn drops(before: &BalanceReading, now: &Sums, incoming: &Sums, outgoing: &Outgoing) -> Vec<Drop> {
    let of = |sums: &Sums, currency: &str| sums.get(currency).copied().unwrap_or_default();
    let judged = sums(&before.balances)
        .into_iter()
        .filter(|(currency, _)| !outgoing.unclear.contains(currency));
    judged
        .filter_map(|(currency, balance)| {
            let (came, left) = (of(incoming, &currency), of(&outgoing.sums, &currency));
            let after = of(now, &currency);
            let unexplained = balance
                .checked_add(came)?
                .checked_sub(left)?
                .checked_sub(after)?;
            let tolerated = left.checked_mul(FEES)?;
            (unexplained > tolerated).then_some(Drop {
                currency,
                balances: (balance, after),
                incoming: came,
                outgoing: left,
                unexplained,
            })
        })
        .collect()
}

fn money(place: &Value, amount: &str, currency: &str) -> Option<(String, Decimal)> {
    let amount = decimal_from_json(place.get(amount)?).ok()?;
    Some((place.get(currency)?.as_str()?.to_owned(), amount))
}

fn add(sums: &mut Sums, money: Option<(String, Decimal)>) {
    if let Some((currency, amount)) = money {
        let sum = sums.entry(currency).or_default();
        *sum = sum.saturating_add(amount);
    }
}

fn texts(sums: &Sums) -> BTreeMap<String, String> {
    let text = |(currency, sum): (&String, &Decimal)| (currency.clone(), sum.to_string());
    sums.iter().map(text).collect()
}

fn sums(texts: &BTreeMap<String, String>) -> Sums {
    let sum = |(currency, text): (&String, &String)| Some((currency.clone(), text.parse().ok()?));
    texts.iter().filter_map(sum).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(sums: &[(&str, &str)]) -> Sums {
        let sum = |(currency, text): &(&str, &str)| ((*currency).to_owned(), text.parse().unwrap());
        sums.iter().map(sum).collect()
    }

    #[test]
    fn only_a_drop_beyond_what_left_and_its_fees_is_unexplained() {
        let unexplained = |now: &str, came: &str, left: &str, unclear: bool| {
            let before = BalanceReading {
                at: Timestamp::UNIX_EPOCH,
                order: 0,
                balances: texts(&of(&[("BTC", "10"), ("EUR", "5")])),
                open: BTreeMap::new(),
                unclear: BTreeSet::new(),
            };
            let outgoing = Outgoing {
                sums: of(&[("BTC", left)]),
                unclear: unclear.then(|| "BTC".to_owned()).into_iter().collect(),
            };
            let now = of(&[("BTC", now), ("EUR", "5")]);
            let drops = drops(&before, &now, &of(&[("BTC", came)]), &outgoing);
            drops.first().map(|drop| drop.unexplained.to_string())
        };
        assert_eq!(unexplained("10", "0", "0", false), None);
        assert_eq!(unexplained("9", "0", "1", false), None);
        assert_eq!(unexplained("8.9", "0", "1", false), None, "a fee");
        assert_eq!(unexplained("8.8", "0", "1", false).as_deref(), Some("0.2"));
        assert_eq!(unexplained("10", "1", "0", false).as_deref(), Some("1"));
        assert_eq!(unexplained("12", "0", "0", false), None, "more is no drop");
        assert_eq!(unexplained("1", "0", "0", true), None, "not judged");
    }
}
