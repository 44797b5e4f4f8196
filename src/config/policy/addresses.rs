//! Lists of addresses: in the configuration, or in a file with one a line.

use super::Reading;
use super::rows::Row;
use crate::config::refusal::Refusal;
use crate::domain::diagnostic::{Diagnostic, Place};
use crate::domain::policy::Addresses;

/// The largest file, in bytes.
const LARGEST_FILE: u64 = 64 * 1024 * 1024;

/// The most mistakes of one file that are reported.
const MOST_REPORTED: usize = 20;

/// The longest address there is, and a little more.
const LONGEST: usize = 256;

pub(super) fn read(
    row: &mut Row<'_>,
    reading: &mut Reading,
    key: &'static str,
) -> Option<Addresses> {
    if let Some((pairs, place)) = row.inner(key) {
        let [(name, path)] = pairs.as_slice() else {
            row.refuse(key, &place, not_a_file());
            return None;
        };
        if name != "file" || path.is_empty() {
            row.refuse(key, &place, not_a_file());
            return None;
        }
        return from_file(row, reading, key, path, &place);
    }
    let texts = row.texts(key)?;
    let addresses: Vec<String> = texts
        .into_iter()
        .filter_map(|(text, place)| row.checked(key, &place, one(&text)))
        .collect();
    Some(addresses.into_iter().collect())
}

fn not_a_file() -> Refusal {
    Refusal::new("a table can only name a file").help("write { file = \"deny.txt\" }")
}

fn one(text: &str) -> Result<String, Refusal> {
    if text.is_empty() || text.len() > LONGEST {
        return Err(Refusal::new("this is no address"));
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Refusal::new(
            "an address has letters, digits and signs, and no spaces",
        ));
    }
    Ok(text.to_owned())
}

fn from_file(
    row: &mut Row<'_>,
    reading: &mut Reading,
    key: &'static str,
    name: &str,
    place: &Place,
) -> Option<Addresses> {
    let path = row.folder().join(name);
    reading.files.push(path.clone());
    let length = std::fs::metadata(&path).map(|metadata| metadata.len());
    let text = match length {
        Ok(length) if length > LARGEST_FILE => Err(std::io::Error::other(format!(
            "it has {length} bytes, at most {LARGEST_FILE} are read"
        ))),
        Ok(_) => std::fs::read_to_string(&path),
        Err(error) => Err(error),
    };
    let text = match text {
        Ok(text) => text,
        Err(error) => {
            let refusal = Refusal::new(format!("`{name}` cannot be read: {error}"))
                .help("paths start at the folder of the configuration");
            row.refuse(key, place, refusal);
            return None;
        }
    };
    let mut addresses = Vec::new();
    let mut wrong = 0_usize;
    for (number, line) in text.lines().enumerate() {
        let content = line.split('#').next().unwrap_or_default().trim();
        if content.is_empty() {
            continue;
        }
        match one(content) {
            Ok(address) => addresses.push(address),
            Err(refusal) => {
                wrong += 1;
                if wrong <= MOST_REPORTED {
                    let place = Place::of_position(name, &text, number + 1, 1);
                    row.report(
                        Diagnostic::new(refusal.message)
                            .at(place)
                            .help("write one address a line; what follows a # is a remark"),
                    );
                }
            }
        }
    }
    if wrong > MOST_REPORTED {
        let more = wrong - MOST_REPORTED;
        row.report(Diagnostic::new(format!(
            "`{name}` has {more} more such lines"
        )));
    }
    Some(addresses.into_iter().collect()).filter(|_| wrong == 0)
}
