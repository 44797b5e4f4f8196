//! Deleting blobs that no record names any more. Called by the retention in `runner`, piece by
//! piece, so that others have their turn.
//!
//! # Design
//! What counts as a reference is decided conservatively: every 64 hex digits in any record may be
//! a blob's hash, whatever the table. So no table can be forgotten here. A blob is looked at only
//! when it was put long ago, and putting it again makes it young: so a content that is on its way
//! into a record, and a record that the index does not have yet, are never missed.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::time::SystemTime;

use super::Store;
use super::blobs::BlobHash;
use super::error::ReadError;
use super::layout::entries;

/// Hex digits of a hash.
const DIGITS: usize = 64;

/// Blobs that may be referenced by nothing, as far as the records have been looked through.
#[derive(Debug)]
pub struct Unreferenced {
    blobs: BTreeSet<BlobHash>,
    put_before: SystemTime,
    /// The last key looked at.
    after: Vec<u8>,
}

impl Store {
    /// Begins to look for blobs that were last put before a time and are not referenced.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn unreferenced_blobs(&self, put_before: SystemTime) -> io::Result<Unreferenced> {
        let mut blobs = BTreeSet::new();
        for folder in entries(&self.shared.blobs.layout().blobs())? {
            if !folder.is_dir() {
                continue;
            }
            for path in entries(&folder)? {
                let name = path.file_name().and_then(|name| name.to_str());
                let hash = name.and_then(|name| name.parse().ok());
                if let Some(hash) = hash
                    && fs::metadata(&path)?.modified()? < put_before
                {
                    blobs.insert(hash);
                }
            }
        }
        Ok(Unreferenced {
            blobs,
            put_before,
            after: Vec::new(),
        })
    }

    /// Looks through the next piece of the records, and keeps the blobs that they name. Answers
    /// whether there is more to look through.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn keep_referenced(&self, unreferenced: &mut Unreferenced) -> Result<bool, ReadError> {
        if unreferenced.blobs.is_empty() {
            return Ok(false);
        }
        let records = self.shared.view.index.records_after(&unreferenced.after);
        let records = records?;
        let Some((last, _)) = records.last() else {
            return Ok(false);
        };
        unreferenced.after.clone_from(last);
        for (_, stored) in &records {
            for hash in named(stored) {
                unreferenced.blobs.remove(&hash);
            }
        }
        Ok(true)
    }

    /// Deletes the blobs that are left after everything was looked through, unless they were put
    /// again meanwhile, or a backup is being made. Answers how many.
    ///
    /// # Errors
    /// When a file cannot be removed; those before it are.
    pub fn delete_unreferenced(&self, unreferenced: Unreferenced) -> io::Result<u64> {
        let shared = &self.shared;
        let mut deleted = 0;
        for hash in unreferenced.blobs {
            if shared
                .keep_segments
                .load(std::sync::atomic::Ordering::SeqCst)
            {
                break;
            }
            deleted += u64::from(shared.blobs.delete(&hash, unreferenced.put_before)?);
        }
        Ok(deleted)
    }
}

/// Every 64 hex digits in a record.
fn named(stored: &[u8]) -> impl Iterator<Item = BlobHash> {
    let is_digit = |byte: &u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte);
    stored
        .split(move |byte| !is_digit(byte))
        .filter(|digits| digits.len() >= DIGITS)
        .flat_map(|digits| digits.windows(DIGITS))
        .filter_map(|digits| std::str::from_utf8(digits).ok()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::store::{Changes, Options, Table};
    use crate::telemetry::Telemetry;

    const NOTES: Table<u64, serde_json::Value> = Table::new("note/", 1);

    fn delete(store: &Store, put_before: SystemTime) -> u64 {
        let mut unreferenced = store.unreferenced_blobs(put_before).unwrap();
        while store.keep_referenced(&mut unreferenced).unwrap() {}
        store.delete_unreferenced(unreferenced).unwrap()
    }

    #[tokio::test]
    async fn only_old_blobs_that_no_record_names_are_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Store::open(dir.path(), &Options::default(), &Telemetry::default()).unwrap();
        let store = open();
        let mut hashes = Vec::new();
        for content in ["left", "named", "within"] {
            hashes.push(store.put_blob(content.into()).await.unwrap());
        }
        let mut changes = Changes::new();
        changes.put(&NOTES, &1, &serde_json::json!({ "long": hashes[1] }));
        changes.put(&NOTES, &2, &serde_json::json!(format!("ab{}cd", hashes[2])));
        store.commit(changes).await.unwrap();
        store.close().await.unwrap();

        let store = open();
        let put = |hash: &BlobHash| {
            let path = dir.path().join("blobs").join(&hash.as_str()[..2]);
            fs::metadata(path.join(hash.as_str()))
                .unwrap()
                .modified()
                .unwrap()
        };
        assert_eq!(delete(&store, put(&hashes[0])), 0, "too young");
        let later = put(&hashes[2]) + Duration::from_mins(1);
        let mut unreferenced = store.unreferenced_blobs(later).unwrap();
        while store.keep_referenced(&mut unreferenced).unwrap() {}
        assert_eq!(unreferenced.blobs, BTreeSet::from([hashes[0].clone()]));
        assert_eq!(store.delete_unreferenced(unreferenced).unwrap(), 1);
        assert!(store.get_blob(&hashes[0]).is_err());
        assert_eq!(store.get_blob(&hashes[1]).unwrap(), b"named");
        assert_eq!(store.get_blob(&hashes[2]).unwrap(), b"within");
        // What was deleted can be put again.
        assert_eq!(store.put_blob(b"left".to_vec()).await.unwrap(), hashes[0]);
        assert_eq!(store.get_blob(&hashes[0]).unwrap(), b"left");
    }

    #[tokio::test]
    async fn what_is_put_again_while_records_are_looked_through_stays() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), &Options::default(), &Telemetry::default()).unwrap();
        let hash = store.put_blob(b"again".to_vec()).await.unwrap();
        let path = dir
            .path()
            .join("blobs")
            .join(&hash.as_str()[..2])
            .join(hash.as_str());
        let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
        fs::File::open(&path)
            .unwrap()
            .set_modified(long_ago)
            .unwrap();
        let old = long_ago + Duration::from_secs(1);
        let unreferenced = store.unreferenced_blobs(old).unwrap();
        assert_eq!(unreferenced.blobs.len(), 1);
        store.put_blob(b"again".to_vec()).await.unwrap();
        assert_eq!(store.delete_unreferenced(unreferenced).unwrap(), 0);
        assert_eq!(store.get_blob(&hash).unwrap(), b"again");
    }
}
