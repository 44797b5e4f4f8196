//! Contents that are too large for the index, as files named by their SHA-256.
//!
//! A blob never changes, and is deleted only when no record names it any more (`unreferenced`), so
//! a hash in a record stays good. Reading verifies the content against its name.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::layout::{Layout, create_folder, read_file, sync_folder, write_file};

/// The SHA-256 of a blob's content: 64 hex digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BlobHash(String);

impl BlobHash {
    /// The hash of `content`.
    #[must_use]
    pub fn of(content: &[u8]) -> Self {
        Self(hex::encode(Sha256::digest(content)))
    }

    /// All 64 digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for BlobHash {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() == 64 && text.bytes().all(digits) {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!("`{text}` is not a blob's hash (64 hex digits)"))
        }
    }
}

impl TryFrom<String> for BlobHash {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<BlobHash> for String {
    fn from(hash: BlobHash) -> Self {
        hash.0
    }
}

impl fmt::Display for BlobHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The folder of blobs.
#[derive(Debug)]
pub(super) struct Blobs {
    layout: Layout,
    /// Keeps the names of files that are being written apart.
    unfinished: AtomicU64,
    /// Nothing is put while something is deleted: whoever puts a content that is there has made it
    /// young before anybody asks for its age.
    deleting: RwLock<()>,
}

impl Blobs {
    pub(super) const fn new(layout: Layout) -> Self {
        Self {
            layout,
            unfinished: AtomicU64::new(0),
            deleting: RwLock::new(()),
        }
    }

    pub(super) const fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Stores a content: on disk when this returns. One that is there and whole is kept, and is as
    /// young as a new one.
    pub(super) fn put(&self, content: &[u8]) -> io::Result<BlobHash> {
        let hash = BlobHash::of(content);
        let _not_deleted = self.deleting.read().unwrap_or_else(PoisonError::into_inner);
        let path = self.path(&hash);
        let folder = path.parent().unwrap_or(&self.layout.dir);
        if read_file(&path)?.is_some_and(|found| found == content) {
            // Whoever wrote it may not have come to syncing the folder.
            sync_folder(folder)?;
            touch(&path)?;
            return Ok(hash);
        }
        create_folder(&self.layout.blobs())?;
        create_folder(folder)?;
        let number = self.unfinished.fetch_add(1, Ordering::Relaxed);
        let unfinished = self.layout.blobs().join(format!("{number}.new"));
        write_file(&path, content, &unfinished)?;
        Ok(hash)
    }

    /// Reads a content and verifies it.
    pub(super) fn get(&self, hash: &BlobHash) -> io::Result<Vec<u8>> {
        let content = std::fs::read(self.path(hash))?;
        if BlobHash::of(&content) == *hash {
            Ok(content)
        } else {
            Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "its content is not what its name says",
            ))
        }
    }

    /// Deletes a content that was last put before a time. Answers whether it did.
    pub(super) fn delete(&self, hash: &BlobHash, put_before: SystemTime) -> io::Result<bool> {
        let path = self.path(hash);
        let _nothing_put = self
            .deleting
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        match std::fs::metadata(&path).and_then(|found| found.modified()) {
            Ok(put) if put < put_before => {}
            Ok(_) => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        }
        std::fs::remove_file(&path)?;
        Ok(true)
    }

    fn path(&self, hash: &BlobHash) -> PathBuf {
        let folder = hash.as_str().get(..2).unwrap_or_default();
        self.layout.blobs().join(folder).join(hash.as_str())
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the age of a file is told by the clock of the file system"
)]
fn touch(path: &Path) -> io::Result<()> {
    File::open(path)?.set_modified(SystemTime::now())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_blob_comes_back_by_its_hash_and_a_damaged_one_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::new(Layout::new(dir.path()));
        let hash = blobs.put(b"content").unwrap();
        assert_eq!(hash, blobs.put(b"content").unwrap());
        assert_eq!(blobs.get(&hash).unwrap(), b"content");
        let missing = blobs.get(&BlobHash::of(b"other")).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);

        fs::write(blobs.path(&hash), b"contenT").unwrap();
        let damaged = blobs.get(&hash).unwrap_err();
        assert_eq!(damaged.kind(), io::ErrorKind::InvalidData);
        blobs.put(b"content").unwrap();
        assert_eq!(blobs.get(&hash).unwrap(), b"content");
    }

    #[test]
    fn a_hash_is_64_lower_case_hex_digits() {
        assert!(BlobHash::of(b"").as_str().parse::<BlobHash>().is_ok());
        assert!("../x".parse::<BlobHash>().is_err());
        assert!(serde_json::from_str::<BlobHash>("\"ab\"").is_err());
    }
}
