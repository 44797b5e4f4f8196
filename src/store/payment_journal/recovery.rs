//! Whether payment journal and store say the same at a start, and completing an append that was
//! interrupted. Used by `recovery`.
//!
//! # Design
//! The payment journal is written after the guard journal and before the answer. So only the very
//! last group can be missing from it, or be there in part, and only if the index does not have it
//! yet; it is then written again from the guard journal's record. Everything else that differs was
//! done to the files by somebody.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::Head;
use super::append::{complete, write_head_note};
use super::chain::{Link, walk};
use crate::store::error::{Damage, Remedy};
use crate::store::layout::Layout;
use crate::store::tail::without_room;

/// The last group with lines that the index does not have.
#[derive(Debug, Default)]
pub(in crate::store) struct Pending {
    /// The stored head after it.
    pub(in crate::store) head: Option<Vec<u8>>,
    pub(in crate::store) lines: Vec<u8>,
    pub(in crate::store) sequence: u64,
}

/// What the comparison of journal and store came to.
#[derive(Debug, Default)]
pub(in crate::store) struct Comparison {
    /// Where the store says that the journal ends.
    pub(in crate::store) head: Head,
    /// Whole lines that are there.
    pub(in crate::store) lines: u64,
    pub(in crate::store) damage: Vec<Damage>,
    /// An append to write again.
    interrupted: Option<Interrupted>,
    pub(in crate::store) pending: Pending,
}

#[derive(Debug)]
struct Interrupted {
    file: u64,
    start: u64,
    lines: Vec<u8>,
}

impl Comparison {
    /// Whether there are lines, and all of them follow each other.
    pub(in crate::store) fn is_whole(&self) -> bool {
        let changed = |damage: &Damage| damage.remedy == Remedy::CopyLines;
        self.lines > 0 && !self.damage.iter().any(changed)
    }

    /// Compares the journal with a store whose index holds `stored` as its head, and whose guard
    /// journal ends with group `end`.
    pub(in crate::store) fn compare(
        &mut self,
        layout: &Layout,
        stored: Option<&[u8]>,
        end: u64,
    ) -> io::Result<()> {
        let pending = std::mem::take(&mut self.pending);
        if let Some(stored) = pending.head.as_deref().or(stored) {
            match Head::decode(stored) {
                Ok(head) => self.head = head,
                // The index's own damage, and told as such.
                Err(_) => return Ok(()),
            }
        }
        if pending.sequence == end {
            self.find_interrupted(layout, pending.lines)?;
        }
        let last = self.walk(layout)?;
        self.lines = last.number;
        if self.damage.is_empty() {
            self.compare_end(layout, &last);
        }
        Ok(())
    }

    fn find_interrupted(&mut self, layout: &Layout, lines: Vec<u8>) -> io::Result<()> {
        let Head { file, length, .. } = self.head;
        let Some(start) = length.checked_sub(lines.len() as u64) else {
            return Ok(());
        };
        let path = layout.payment_file(file);
        let there = match fs::read(&path) {
            Ok(there) => there,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let at = usize::try_from(start).unwrap_or(usize::MAX);
        let differs = there.get(at..).is_some_and(|tail| {
            let room = tail.get(lines.len()..).unwrap_or_default();
            !tail.starts_with(&lines) && without_room(room).is_empty()
        });
        if differs {
            self.interrupted = Some(Interrupted { file, start, lines });
        }
        Ok(())
    }

    /// A file as it will be when the interrupted append is completed.
    fn content(&self, file: u64, path: &Path) -> io::Result<Vec<u8>> {
        let mut content = match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            read => read?,
        };
        if let Some(interrupted) = self.interrupted.as_ref().filter(|it| it.file == file) {
            content.truncate(usize::try_from(interrupted.start).unwrap_or(usize::MAX));
            content.extend(&interrupted.lines);
        }
        Ok(content)
    }

    fn walk(&mut self, layout: &Layout) -> io::Result<Link> {
        let mut files = layout.payment_files()?;
        if let Some(interrupted) = &self.interrupted {
            let named = (interrupted.file, layout.payment_file(interrupted.file));
            if !files.contains(&named) {
                files.push(named);
                files.sort();
            }
        }
        let mut last = Link::before_all();
        for (first, path) in files {
            let expected = last.number + 1;
            let content = self.content(first, &path)?;
            let walked = walk(&content, last, |_, _, _| {});
            last = walked.last;
            for flaw in walked.flaws {
                self.report(&path, format!("line {}: {}", flaw.line, flaw.finding));
            }
            if walked.torn > 0 {
                let finding = format!("line {} is cut off", walked.lines + 1);
                self.report(&path, finding);
            }
            if first != expected {
                let finding = format!("the file must begin with line number {expected}");
                self.report(&path, finding);
            }
        }
        Ok(last)
    }

    fn compare_end(&mut self, layout: &Layout, last: &Link) {
        let (number, expected) = (last.number, self.head.number);
        let path = self.last_file(layout, number);
        if number < expected {
            let finding = format!(
                "the payment journal ends with line number {number}, and the store knows {expected}: the last lines, or their files, are missing"
            );
            self.report(&path, finding);
        } else if number > expected {
            let finding = format!(
                "the payment journal holds line number {number}, and the store knows only {expected}: the store is older than its payment journal, or of another daemon"
            );
            self.damage
                .push(Damage::new(&path, Remedy::RebuildPayments, finding));
        } else if number > 0 && last.hash != self.head.hash {
            let finding =
                format!("line number {number}, the last one, is not the one that the store knows");
            self.report(&path, finding);
        }
    }

    fn last_file(&self, layout: &Layout, number: u64) -> PathBuf {
        if number == 0 {
            layout.payment_journal()
        } else {
            let files = layout.payment_files().unwrap_or_default();
            let last = files.last().map(|(_, path)| path.clone());
            last.unwrap_or_else(|| layout.payment_file(self.head.file))
        }
    }

    fn report(&mut self, file: &Path, finding: String) {
        self.damage
            .push(Damage::new(file, Remedy::CopyLines, finding));
    }

    /// Writes an interrupted append again, and the note anew: on disk when this returns.
    pub(in crate::store) fn complete(&self, layout: &Layout) -> io::Result<Option<u64>> {
        if let Some(Interrupted { file, start, lines }) = &self.interrupted {
            complete(layout, *file, *start, lines)?;
        }
        if self.head.number > 0 {
            write_head_note(layout, &self.head)?;
        }
        Ok(self.interrupted.as_ref().map(|it| it.lines.len() as u64))
    }
}
