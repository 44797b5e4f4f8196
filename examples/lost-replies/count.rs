//! Compares a gateway's ledger with the CSV file.

use std::collections::BTreeMap;

use anyhow::Context;
use rust_decimal::Decimal;

use super::Scene;

/// What came of one payer.
#[derive(Debug)]
pub struct Counted {
    /// Payments that were wanted, which is rows.
    rows: usize,
    /// Payments that the gateway executed.
    executed: usize,
    /// Rows that were paid more than once.
    double: usize,
    /// Addresses of rows that were not paid, without anybody knowing.
    unpaid: Vec<String>,
    /// Unpaid rows of which the payer says that it does not know.
    in_doubt: usize,
    /// What was paid above what was wanted, less what was not paid.
    too_much: Decimal,
    /// What was wanted.
    wanted: Decimal,
}

impl Counted {
    /// Counts by address: every row has one of its own.
    pub fn of(scene: &Scene, csv: &str) -> anyhow::Result<Self> {
        let mut paid: BTreeMap<String, (usize, Decimal)> = BTreeMap::new();
        let executions = scene.control.executions();
        for execution in &executions {
            let address = execution.address.clone().context("a payout to nowhere")?;
            let entry = paid.entry(address).or_default();
            entry.0 += 1;
            entry.1 += execution.amount;
        }
        let mut counted = Self {
            rows: 0,
            executed: executions.len(),
            double: 0,
            unpaid: Vec::new(),
            in_doubt: 0,
            too_much: Decimal::ZERO,
            wanted: Decimal::ZERO,
        };
        for row in csv::Reader::from_reader(csv.as_bytes()).deserialize() {
            let row: BTreeMap<String, String> = row?;
            let address = row.get("address").context("no address")?;
            let amount: Decimal = row.get("amount").context("no amount")?.parse()?;
            let (times, sum) = paid.remove(address).unwrap_or_default();
            counted.rows += 1;
            counted.wanted += amount;
            counted.double += usize::from(times > 1);
            if times == 0 {
                counted.unpaid.push(address.clone());
            } else {
                counted.too_much += sum - amount;
            }
        }
        anyhow::ensure!(paid.is_empty(), "paid to addresses of no row: {paid:?}");
        Ok(counted)
    }

    /// The same, with the addresses of payments whose fate the payer does not know, and says so.
    pub fn in_doubt(mut self, addresses: &[String]) -> Self {
        let named = |address: &String| addresses.contains(address);
        self.in_doubt = self.unpaid.iter().filter(|address| named(address)).count();
        self.unpaid.retain(|address| !named(address));
        self
    }

    fn line(&self, name: &str) -> String {
        let Self {
            rows,
            executed,
            double,
            in_doubt,
            ..
        } = self;
        let unpaid = self.unpaid.len();
        let (too_much, wanted) = (self.too_much.normalize(), self.wanted.normalize());
        format!(
            "| {name} | {rows} | {executed} | {double} | {unpaid} | {in_doubt} | {too_much} of {wanted} USDTT |"
        )
    }
}

/// All of them, as a table in Markdown.
pub fn table(lines: &[(&str, Counted)]) -> String {
    let mut table = vec![
        "| payer | rows | executed by the gateway | paid more than once | missed | in doubt, and named | paid too much |".to_owned(),
        "|---|---:|---:|---:|---:|---:|---:|".to_owned(),
    ];
    table.extend(lines.iter().map(|(name, counted)| counted.line(name)));
    table.join("\n") + "\n"
}
