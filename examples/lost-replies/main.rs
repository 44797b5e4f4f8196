//! Pays one CSV file three times, against three simulated gateways that lose the same share of
//! replies, with every payer killed twice in the middle and started again: with the script that
//! people write, with the same one mended in one place, and with Bursar. Then it counts, in each
//! gateway's own ledger, what was paid.
//!
//! `cargo build --release && cargo run --release --example lost-replies`

#![expect(clippy::print_stdout, reason = "this program is there to be read")]

mod count;
mod naive;
mod ours;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use bursar::simulator::{self, Control, Fault, Faults, Operation, Options, Rule, Simulator};
use clap::Parser;
use rust_decimal::Decimal;

use count::Counted;

/// Counts what is paid twice when replies are lost and payers are killed
#[derive(Debug, Parser)]
struct Arguments {
    /// How many rows the CSV file has
    #[arg(long, default_value_t = 300)]
    rows: usize,
    /// Decides which replies are lost, one in ten
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The `bursar` binary [default: the one of the same build as this program]
    #[arg(long, value_name = "PATH")]
    bursar: Option<PathBuf>,
    /// Ends when nothing is open but payments that the gateway has never got, instead of waiting
    /// until Bursar stops looking for them
    #[arg(long)]
    hurry: bool,
    /// Also writes the table into this file, between the lines `<!-- table -->`
    #[arg(long, value_name = "FILE")]
    readme: Option<PathBuf>,
    #[command(subcommand)]
    payer: Option<Payer>,
}

/// What this program calls itself with, to have a process that can be killed.
#[derive(Debug, clap::Subcommand)]
enum Payer {
    /// Pay like the script that people write
    #[command(hide = true)]
    Naive(naive::Options),
}

/// What the payers find.
struct Scene {
    /// Of this payer alone; removed with the scene.
    folder: tempfile::TempDir,
    /// The gateway from behind.
    control: Control,
    /// Its address.
    base_url: String,
    /// The number of rows to pay.
    rows: usize,
    _simulator: Simulator,
}

impl Scene {
    /// The keys of all payments that the gateway has executed.
    fn executed(&self) -> BTreeSet<String> {
        let executions = self.control.executions().into_iter();
        executions.map(|execution| execution.foreign_id).collect()
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if let Some(Payer::Naive(options)) = &arguments.payer {
        return naive::pay(options).await;
    }
    let bursar = match &arguments.bursar {
        Some(path) => path.clone(),
        None => beside_this_program()?,
    };
    let csv = csv(arguments.rows);
    let mut lines = Vec::new();
    for (name, understands_created) in [
        ("the usual script", false),
        ("the usual script, taking 201 for success", true),
    ] {
        let scene = scene(&arguments, &csv).await?;
        naive::killed_twice(&scene, understands_created).await?;
        lines.push((name, Counted::of(&scene, &csv)?));
    }
    let scene = scene(&arguments, &csv).await?;
    let in_doubt = ours::killed_twice(&scene, &bursar, arguments.hurry).await?;
    lines.push(("Bursar", Counted::of(&scene, &csv)?.in_doubt(&in_doubt)));
    let table = count::table(&lines);
    println!("{table}");
    if let Some(readme) = &arguments.readme {
        write_table(readme, &table)?;
    }
    Ok(())
}

/// A gateway, and a folder with the CSV file.
async fn scene(arguments: &Arguments, csv: &str) -> anyhow::Result<Scene> {
    let simulator = simulator::start(Options {
        seed: arguments.seed,
        latency: Duration::from_millis(10),
        // Callbacks that meet a dead daemon come again after seconds instead of minutes.
        speed: 60,
        faults: Faults(vec![Rule {
            operation: Some(Operation::Withdrawal),
            per_mille: Some(100),
            ..Rule::always(Fault::DropAnswer)
        }]),
        ..Options::default()
    })
    .await?;
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("payouts.csv"), csv)?;
    Ok(Scene {
        folder,
        control: simulator.control(),
        base_url: simulator.base_url(),
        rows: arguments.rows,
        _simulator: simulator,
    })
}

/// A table of payouts, each to an address of its own.
fn csv(rows: usize) -> String {
    let row = |row: usize| {
        let amount = Decimal::new(i64::try_from(row).unwrap_or(0) * 25 + 1000, 2);
        format!(
            "{row},c-{row},USDTT,{amount},TPayee{row},Ada,Lovelace,1990-12-10
"
        )
    };
    let heading = "id,customer,currency,amount,address,first_name,last_name,born
";
    std::iter::once(heading.to_owned())
        .chain((1..=rows).map(row))
        .collect()
}

/// Where cargo puts the binary: one folder above the examples.
fn beside_this_program() -> anyhow::Result<PathBuf> {
    let example = std::env::current_exe()?;
    let folder = example.parent().and_then(Path::parent);
    let name = format!("bursar{}", std::env::consts::EXE_SUFFIX);
    let binary = folder.context("this program has no folder")?.join(name);
    if !binary.exists() {
        bail!(
            "there is no {}; build it first, `cargo build --release`, or name one with --bursar",
            binary.display()
        );
    }
    Ok(binary)
}

fn write_table(readme: &Path, table: &str) -> anyhow::Result<()> {
    const MARK: &str = "<!-- table -->";
    let text = std::fs::read_to_string(readme)?;
    let mut parts = text.splitn(3, MARK);
    let (Some(before), Some(_), Some(after)) = (parts.next(), parts.next(), parts.next()) else {
        bail!("{} has no two lines `{MARK}`", readme.display());
    };
    std::fs::write(readme, format!("{before}{MARK}\n\n{table}\n{MARK}{after}"))?;
    Ok(())
}

/// Waits until the gateway has executed so many payments.
async fn until_executed(scene: &Scene, payments: usize) -> anyhow::Result<()> {
    let wait = async {
        while scene.control.executions().len() < payments {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(5), wait)
        .await
        .with_context(|| format!("the gateway has not executed {payments} payments in time"))
}
