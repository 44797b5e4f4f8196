//! The CSV payer as people write it. Its mistakes are on purpose and said where they are made.
//!
//! It signs with its own few lines, as it would in a project of its own.

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, ensure};
use hmac::{Hmac, KeyInit, Mac};
use serde::Deserialize;
use serde_json::json;
use sha2::Sha512;

use super::{Scene, until_executed};

/// How a row is tried: once more after an error.
const TRIES: usize = 2;

/// The options of the process.
#[derive(Debug, clap::Args)]
pub struct Options {
    csv: PathBuf,
    base_url: String,
    /// Which start of the program this is; in life it would be the time of day.
    start: u32,
    /// Whether 201 is a success.
    #[arg(long)]
    understands_created: bool,
}

#[derive(Debug, Deserialize)]
struct Row {
    id: String,
    customer: String,
    currency: String,
    amount: String,
    address: String,
    first_name: String,
    last_name: String,
    born: String,
}

/// Pays every row, from the first to the last.
pub async fn pay(options: &Options) -> anyhow::Result<()> {
    // No timeout.
    let client = reqwest::Client::new();
    // No file that says which rows are paid: after a crash it begins with the first one again.
    for row in csv::Reader::from_path(&options.csv)?.deserialize() {
        let row: Row = row?;
        for attempt in 0..TRIES {
            match request(&client, options, &row, attempt).await {
                Ok(200) => break,
                // "Created" is not 200, so it must be an error.
                Ok(201) if options.understands_created => break,
                Ok(status) => eprintln_row(&row, &format!("HTTP {status}")),
                // No reply, so it cannot have been paid.
                Err(error) => eprintln_row(&row, &error.to_string()),
            }
        }
    }
    Ok(())
}

async fn request(
    client: &reqwest::Client,
    options: &Options,
    row: &Row,
    attempt: usize,
) -> Result<u16, reqwest::Error> {
    let body = json!({
        // "Every withdrawal must use a new foreign_id", so every request gets one.
        "foreign_id": format!("{}-{}-{attempt}", row.id, options.start),
        "currency": row.currency,
        "amount": row.amount,
        "address": row.address,
        "end_user_reference": row.customer,
        "sender_type": "legal",
        "sender_data": {"legal_name": "Example Shop Ltd", "country_of_registration": "DEU"},
        "receiver_type": "natural",
        "receiver_data": {
            "first_name": row.first_name, "last_name": row.last_name, "date_of_birth": row.born,
        },
    })
    .to_string();
    let answer = client
        .post(format!("{}/withdrawal/crypto", options.base_url))
        .header("Content-Type", "application/json")
        .header("X-Processing-Key", "simulator-key")
        .header("X-Processing-Signature", sign("simulator-secret", &body))
        .body(body)
        .send()
        .await?;
    Ok(answer.status().as_u16())
}

fn sign(secret: &str, body: &str) -> String {
    <Hmac<Sha512> as KeyInit>::new_from_slice(secret.as_bytes())
        .map(|mac| hex::encode(mac.chain_update(body).finalize().into_bytes()))
        .unwrap_or_default()
}

#[expect(
    clippy::print_stderr,
    reason = "this is all that the usual script does about errors"
)]
fn eprintln_row(row: &Row, what: &str) {
    eprintln!("row {}: {what}", row.id);
}

/// Lets it pay the file of the scene, kills it when the gateway has executed a third of the rows
/// and again at two thirds, and starts it again each time, the last time until it is done.
pub async fn killed_twice(scene: &Scene, understands_created: bool) -> anyhow::Result<()> {
    for start in 1..=3 {
        let mut command = tokio::process::Command::new(std::env::current_exe()?);
        command
            .arg("naive")
            .arg(scene.folder.path().join("payouts.csv"))
            .args([&scene.base_url, &start.to_string()])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        if understands_created {
            command.arg("--understands-created");
        }
        let mut process = command.spawn().context("the usual script does not start")?;
        if start < 3 {
            until_executed(scene, scene.rows * start / 3).await?;
            process.kill().await?;
        } else {
            let status = process.wait().await?;
            ensure!(status.success(), "the usual script ended with {status}");
        }
    }
    Ok(())
}
