//! Reading the payment journal without the store, while a daemon runs or not: verifying it, and
//! going through its lines. Used by `bursar audit`, and by nothing that decides.
//!
//! # Design
//! Without the store, what proves that no lines are missing at the end is the note of the last one.
//! It is read first: a running daemon appends meanwhile, and what stands behind the noted line may
//! be half of a line. Whoever can write all files can forge the whole chain; against that helps
//! only a hash that is kept elsewhere, which is why verifying tells the last one.

use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use super::append::read_head_note;
use super::chain::{Link, walk};
use crate::domain::payment::Line;
use crate::store::layout::Layout;

/// How often the note is read: a daemon may be writing it at that moment.
const TRIES: usize = 5;

/// Something that is wrong with the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The file.
    pub file: PathBuf,
    /// The line in it, from 1, if it is about one.
    pub line: Option<usize>,
    /// What is wrong.
    pub what: String,
}

/// What verifying came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audit {
    /// How many files there are.
    pub files: usize,
    /// How many whole lines.
    pub lines: u64,
    /// Number of the last line, 0 if there is none.
    pub last: u64,
    /// Its SHA-256 in hex. Kept elsewhere, it proves later that nothing up to it was changed.
    pub hash: String,
    /// Bytes of an append that is going on, or was interrupted and is completed at the next start.
    pub unfinished_bytes: u64,
    /// Everything that is wrong.
    pub findings: Vec<Finding>,
}

/// One line of the journal.
#[derive(Debug)]
pub struct Entry<'a> {
    /// Its number, from 1.
    pub number: u64,
    /// The group of the commit it belongs to.
    pub sequence: u64,
    /// What it says.
    pub line: Line,
    /// The line as it stands there.
    pub text: &'a str,
}

/// Why the journal cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The operating system refused, or there is no such folder.
    #[error("cannot read `{}`", .0.display())]
    Io(PathBuf, #[source] io::Error),
    /// A line says something that this release does not understand.
    #[error("`{}`, line {line}: {source}", .file.display())]
    Line {
        /// The file.
        file: PathBuf,
        /// The line in it, from 1.
        line: usize,
        /// Why not.
        source: serde_json::Error,
    },
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> JournalError + use<> {
    let path = path.to_owned();
    move |source| JournalError::Io(path, source)
}

/// Verifies the payment journal of the store in `dir`, which a daemon may have open. `anchor` is
/// the number and the hash of a line, from an earlier time.
///
/// # Errors
/// [`JournalError::Io`] when it cannot be read at all; what is wrong with it is part of the result.
pub fn verify(dir: &Path, anchor: Option<(u64, &str)>) -> Result<Audit, JournalError> {
    let layout = Layout::new(dir);
    fs::metadata(dir).map_err(io_error(dir))?;
    let note = note(&layout).map_err(io_error(&layout.payment_head()))?;
    let files = layout
        .payment_files()
        .map_err(io_error(&layout.payment_journal()))?;
    let mut audit = Audit {
        files: files.len(),
        lines: 0,
        last: 0,
        hash: String::new(),
        unfinished_bytes: 0,
        findings: Vec::new(),
    };
    let mut anchors: Vec<(u64, String, bool)> = Vec::new();
    anchors.extend(note.clone().map(|(number, hash)| (number, hash, false)));
    anchors.extend(anchor.map(|(number, hash)| (number, hash.to_owned(), false)));
    let mut last = Link::before_all();
    let count = files.len();
    for (at, (first, path)) in files.iter().enumerate() {
        let content = fs::read(path).map_err(io_error(path))?;
        let expected = last.number + 1;
        let walked = walk(&content, last, |link, _, _| {
            for (number, hash, seen) in &mut anchors {
                *seen |= *number == link.number && *hash == link.hash;
            }
        });
        audit.lines += walked.lines as u64;
        last = walked.last;
        let flaws = walked.flaws.into_iter();
        audit.findings.extend(flaws.map(|flaw| Finding {
            file: path.clone(),
            line: Some(flaw.line),
            what: flaw.finding,
        }));
        if *first != expected {
            let what = format!("the file must begin with line number {expected}");
            audit.find(path, None, what);
        }
        let noted = note
            .as_ref()
            .is_none_or(|(number, _)| last.number >= *number);
        if walked.torn > 0 && at + 1 == count && noted {
            audit.unfinished_bytes = walked.torn as u64;
        } else if walked.torn > 0 {
            audit.find(path, Some(walked.lines + 1), "is cut off".to_owned());
        }
    }
    audit.last = last.number;
    audit.hash = last.hash;
    audit.compare(&layout, note.is_some(), &anchors);
    Ok(audit)
}

impl Audit {
    fn find(&mut self, file: &Path, line: Option<usize>, what: String) {
        self.findings.push(Finding {
            file: file.to_owned(),
            line,
            what,
        });
    }

    fn compare(&mut self, layout: &Layout, noted: bool, anchors: &[(u64, String, bool)]) {
        let last = self.last;
        if !noted && (last > 0 || layout.payment_journal().exists()) {
            let what = "the note of the last line is missing or damaged, so nothing proves that \
                        no lines are missing at the end; a start of the daemon compares the \
                        journal with the store and writes the note again";
            self.find(&layout.payment_head(), None, what.to_owned());
        }
        for (number, _, seen) in anchors {
            if *seen || *number == 0 {
                continue;
            }
            let what = if *number > last {
                format!(
                    "the journal ends with line number {last}, but number {number} was written: the last lines, or their files, are missing"
                )
            } else {
                format!("line number {number} is not the one that was written")
            };
            self.find(&layout.payment_journal(), None, what);
        }
    }
}

/// The note of the last line; read again if a daemon may just be writing it.
fn note(layout: &Layout) -> io::Result<Option<(u64, String)>> {
    for _ in 1..TRIES {
        let note = read_head_note(layout)?;
        if note.is_some() || !layout.payment_head().exists() {
            return Ok(note);
        }
    }
    read_head_note(layout)
}

/// Goes through the lines of the payment journal of the store in `dir`, oldest first, until `each`
/// says otherwise. Verifies nothing; a line that is no line is left out, and so is an append that is
/// going on.
///
/// # Errors
/// [`JournalError`]
pub fn read(
    dir: &Path,
    mut each: impl FnMut(Entry<'_>) -> ControlFlow<()>,
) -> Result<(), JournalError> {
    let layout = Layout::new(dir);
    let folder = layout.payment_journal();
    let mut last = Link::before_all();
    for (_, path) in layout.payment_files().map_err(io_error(&folder))? {
        let content = fs::read(&path).map_err(io_error(&path))?;
        let mut outcome = Ok(ControlFlow::Continue(()));
        let mut line = 0;
        let walked = walk(&content, last, |link, _, text| {
            line += 1;
            if !matches!(outcome, Ok(ControlFlow::Continue(()))) {
                return;
            }
            outcome = serde_json::from_slice(text)
                .map(|parsed| {
                    each(Entry {
                        number: link.number,
                        sequence: link.sequence,
                        line: parsed,
                        text: std::str::from_utf8(text).unwrap_or_default(),
                    })
                })
                .map_err(|source| JournalError::Line {
                    file: path.clone(),
                    line,
                    source,
                });
        });
        if outcome?.is_break() {
            break;
        }
        last = walked.last;
    }
    Ok(())
}
