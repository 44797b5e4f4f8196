//! The data folder: the only files that scripts can read and write.
//!
//! Paths are relative, with `/` between plain names; wherever symlinks lead, they must lead to
//! something below the folder. This holds against scripts, which cannot make links; whoever else
//! may write to the folder is trusted not to swap links while a file is being opened.
//!
//! All functions block; call them on a thread that may.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// How names of unfinished files begin; they are shown to nobody.
const UNFINISHED: &str = ".bursar-";

/// A folder and everything below it. Need not exist until something is written.
#[derive(Debug, Clone)]
pub struct DataFolder {
    root: PathBuf,
}

/// One name in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name, without folders.
    pub name: String,
    /// Size in bytes; 0 for folders.
    pub size: u64,
    /// Whether it is a folder.
    pub is_dir: bool,
}

/// Why a file could not be used. The texts name the path as the script wrote it.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The path leaves the data folder, or could.
    #[error("`{0}` is not a relative path below the data folder")]
    NotAllowed(String),
    /// There is no such file, or it is a folder where a file is needed.
    #[error("there is no file `{0}`")]
    NotFound(String),
    /// The file is larger than it may be.
    #[error("`{path}` is larger than {most} bytes")]
    TooLarge {
        /// The path.
        path: String,
        /// The limit, in bytes.
        most: u64,
    },
    /// The file is not text.
    #[error("`{0}` is not UTF-8 text")]
    NotUtf8(String),
    /// The system refused; `AlreadyExists` when the target of a move is there.
    #[error("`{path}` cannot be used: {source}")]
    Io {
        /// The path.
        path: String,
        /// What the system said.
        source: io::Error,
    },
}

impl DataFolder {
    /// Confines to `root`. Touches nothing yet.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    /// The text of a file of at most `most` bytes.
    ///
    /// # Errors
    /// [`FileError`]
    pub fn read(&self, path: &str, most: u64) -> Result<String, FileError> {
        let real = self.existing(path)?;
        let failed = |source| failed(path, source);
        let metadata = fs::metadata(&real).map_err(failed)?;
        // Opening a pipe would wait for its other end.
        if !metadata.is_file() {
            return Err(FileError::NotFound(path.to_owned()));
        }
        let mut bytes = Vec::new();
        let file = fs::File::open(&real).map_err(failed)?;
        file.take(most.saturating_add(1))
            .read_to_end(&mut bytes)
            .map_err(failed)?;
        if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > most {
            let path = path.to_owned();
            return Err(FileError::TooLarge { path, most });
        }
        String::from_utf8(bytes).map_err(|_| FileError::NotUtf8(path.to_owned()))
    }

    /// Replaces a file, and makes the folders it needs. Whoever reads it sees the old text or the
    /// new one, also after a crash. On disk when this returns.
    ///
    /// # Errors
    /// [`FileError`]; the old text is still there.
    pub fn write(&self, path: &str, text: &str) -> Result<(), FileError> {
        let (folder, name) = self.place(path)?;
        let failed = |source| failed(path, source);
        let mut file = tempfile::Builder::new()
            .prefix(UNFINISHED)
            .permissions(fs::Permissions::from_mode(0o666))
            .tempfile_in(&folder)
            .map_err(failed)?;
        file.write_all(text.as_bytes()).map_err(failed)?;
        file.as_file().sync_all().map_err(failed)?;
        file.persist(folder.join(name))
            .map_err(|error| failed(error.error))?;
        sync_folder(&folder).map_err(failed)
    }

    /// The names in a folder, sorted; the empty path is the data folder itself. What scripts
    /// cannot reach is left out.
    ///
    /// # Errors
    /// [`FileError`]
    pub fn list(&self, path: &str) -> Result<Vec<Entry>, FileError> {
        let folder = if path.is_empty() {
            self.real_root(path)?
        } else {
            self.existing(path)?
        };
        let mut entries = Vec::new();
        for entry in fs::read_dir(&folder).map_err(|source| failed(path, source))? {
            let entry = entry.map_err(|source| failed(path, source))?;
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            let inside = if path.is_empty() {
                name.clone()
            } else {
                format!("{path}/{name}")
            };
            let metadata = self.existing(&inside).map(fs::metadata);
            if let Ok(Ok(metadata)) = metadata
                && !name.starts_with(UNFINISHED)
            {
                let is_dir = metadata.is_dir();
                let size = if is_dir { 0 } else { metadata.len() };
                entries.push(Entry { name, size, is_dir });
            }
        }
        entries.sort_by(|left, right| left.name.cmp(&right.name));
        Ok(entries)
    }

    /// Moves a file; makes the folders it needs and replaces nothing. On disk when this returns.
    /// A move that a crash interrupted may leave the file under both names; moving it again
    /// finishes it.
    ///
    /// # Errors
    /// [`FileError`]; [`FileError::Io`] with `AlreadyExists` when the target is there.
    pub fn move_file(&self, from: &str, to: &str) -> Result<(), FileError> {
        let source = self.existing(from)?;
        if !source.is_file() {
            return Err(FileError::NotFound(from.to_owned()));
        }
        let (from_folder, from_name) = self.place(from)?;
        let (to_folder, to_name) = self.place(to)?;
        let (old, new) = (from_folder.join(from_name), to_folder.join(to_name));
        // Linking is the one way to give a file a name that fails when the name is taken.
        if let Err(error) = fs::hard_link(&old, &new)
            && !(error.kind() == io::ErrorKind::AlreadyExists && old != new && is_same(&old, &new))
        {
            return Err(failed(to, error));
        }
        sync_folder(&to_folder).map_err(|source| failed(to, source))?;
        fs::remove_file(&old).map_err(|source| failed(from, source))?;
        sync_folder(&from_folder).map_err(|source| failed(from, source))
    }

    fn real_root(&self, path: &str) -> Result<PathBuf, FileError> {
        self.root
            .canonicalize()
            .map_err(|source| failed(path, source))
    }

    /// Where something that exists really is, if that is below the folder.
    fn existing(&self, path: &str) -> Result<PathBuf, FileError> {
        let relative = plain(path)?;
        let root = self.real_root(path)?;
        let real = root
            .join(relative)
            .canonicalize()
            .map_err(|source| failed(path, source))?;
        if real.starts_with(&root) {
            Ok(real)
        } else {
            Err(FileError::NotAllowed(path.to_owned()))
        }
    }

    /// The folder that something is or will be in, made if need be, and its name there.
    fn place<'a>(&self, path: &'a str) -> Result<(PathBuf, &'a str), FileError> {
        plain(path)?;
        let failed = |source| failed(path, source);
        fs::create_dir_all(&self.root).map_err(failed)?;
        let mut folder = self.real_root(path)?;
        let root = folder.clone();
        let (folders, name) = path.rsplit_once('/').unwrap_or(("", path));
        for step in folders.split('/').filter(|step| !step.is_empty()) {
            let next = folder.join(step);
            match fs::create_dir(&next) {
                Ok(()) => sync_folder(&folder).map_err(failed)?,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(failed(error)),
            }
            // Checked at every step, before anything is made further down.
            folder = next.canonicalize().map_err(failed)?;
            if !folder.starts_with(&root) {
                return Err(FileError::NotAllowed(path.to_owned()));
            }
        }
        Ok((folder, name))
    }
}

/// A relative path of plain names.
fn plain(path: &str) -> Result<&Path, FileError> {
    let is_plain = |name: &str| {
        !matches!(name, "" | "." | "..")
            && !name.starts_with(UNFINISHED)
            && !name.chars().any(|c| c == '\\' || c.is_control())
    };
    if path.split('/').all(is_plain) {
        Ok(Path::new(path))
    } else {
        Err(FileError::NotAllowed(path.to_owned()))
    }
}

fn failed(path: &str, source: io::Error) -> FileError {
    let path = path.to_owned();
    if matches!(
        source.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    ) {
        FileError::NotFound(path)
    } else {
        FileError::Io { path, source }
    }
}

/// Whether two names stand for one file, which has both of them: where case does not matter, two
/// spellings are one name.
fn is_same(left: &Path, right: &Path) -> bool {
    let identity = |path| {
        let metadata = fs::symlink_metadata(path).ok()?;
        (metadata.nlink() > 1).then_some((metadata.dev(), metadata.ino()))
    };
    identity(left).is_some() && identity(left) == identity(right)
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A data folder with a file in it, and beside it a secret that nobody may reach.
    fn folder() -> (tempfile::TempDir, DataFolder) {
        let outside = tempfile::tempdir().unwrap();
        let root = outside.path().join("data");
        fs::create_dir_all(root.join("sub")).unwrap();
        fs::write(outside.path().join("secret.txt"), "secret").unwrap();
        fs::write(root.join("rows.csv"), "a,b\n").unwrap();
        (outside, DataFolder::new(&root))
    }

    fn is_not_allowed<T>(result: &Result<T, FileError>) -> bool {
        matches!(result, Err(FileError::NotAllowed(_)))
    }

    fn names(entries: &[Entry]) -> Vec<&str> {
        entries.iter().map(|entry| entry.name.as_str()).collect()
    }

    #[test]
    fn what_is_written_is_read_and_listed() {
        let (_outside, data) = folder();
        data.write("reports/2026/11.txt", "größe").unwrap();
        assert_eq!(data.read("reports/2026/11.txt", 100).unwrap(), "größe");
        data.write("reports/2026/11.txt", "new").unwrap();
        assert_eq!(data.read("reports/2026/11.txt", 100).unwrap(), "new");
        assert_eq!(
            data.list("").unwrap(),
            [
                ("reports", 0, true),
                ("rows.csv", 4, false),
                ("sub", 0, true)
            ]
            .map(|(name, size, is_dir)| Entry {
                name: name.to_owned(),
                size,
                is_dir
            })
        );
        assert_eq!(names(&data.list("reports/2026").unwrap()), ["11.txt"]);
    }

    #[test]
    fn no_path_leads_out() {
        let (outside, data) = folder();
        let absolute = outside.path().join("secret.txt");
        for path in [
            "../secret.txt",
            "sub/../../secret.txt",
            "sub/../rows.csv",
            "./rows.csv",
            "..",
            ".",
            "/etc/passwd",
            absolute.to_str().unwrap(),
            "//etc/passwd",
            "sub//x",
            "sub/",
            "..\\secret.txt",
            "C:\\secret.txt",
            "rows.csv\0",
            "a\nb",
            "",
            ".bursar-x",
        ] {
            assert!(is_not_allowed(&data.read(path, 100)), "read {path:?}");
            assert!(is_not_allowed(&data.write(path, "x")), "write {path:?}");
            assert!(is_not_allowed(&data.move_file(path, "y")), "from {path:?}");
            assert!(
                is_not_allowed(&data.move_file("rows.csv", path)),
                "to {path:?}"
            );
            if !path.is_empty() {
                assert!(is_not_allowed(&data.list(path)), "list {path:?}");
            }
        }
        assert_eq!(fs::read_to_string(absolute).unwrap(), "secret");
        assert_eq!(names(&data.list("").unwrap()), ["rows.csv", "sub"]);
    }

    #[test]
    fn symlinks_may_lead_around_inside_and_never_out() {
        let (outside, data) = folder();
        let root = outside.path().join("data");
        symlink(outside.path().join("secret.txt"), root.join("file")).unwrap();
        symlink(outside.path(), root.join("dir")).unwrap();
        symlink("..", root.join("sub/up")).unwrap();
        symlink("nowhere", root.join("dangling")).unwrap();
        for path in ["file", "dir/secret.txt", "sub/up/dir/secret.txt"] {
            assert!(is_not_allowed(&data.read(path, 100)), "read {path}");
            assert!(is_not_allowed(&data.move_file(path, "y")), "from {path}");
        }
        assert!(is_not_allowed(&data.list("dir")));
        assert!(is_not_allowed(&data.write("dir/new.txt", "x")));
        assert!(is_not_allowed(&data.write("dir/new/new.txt", "x")));
        assert!(is_not_allowed(&data.move_file("rows.csv", "dir/rows.csv")));
        assert!(!outside.path().join("new.txt").exists());
        assert!(!outside.path().join("new").exists());

        assert_eq!(data.read("sub/up/rows.csv", 100).unwrap(), "a,b\n");
        assert_eq!(names(&data.list("").unwrap()), ["rows.csv", "sub"]);

        // Writing over a link replaces the link, not what it leads to.
        data.write("file", "mine").unwrap();
        assert_eq!(data.read("file", 100).unwrap(), "mine");
        let secret = fs::read_to_string(outside.path().join("secret.txt"));
        assert_eq!(secret.unwrap(), "secret");
    }

    #[test]
    fn the_data_folder_itself_may_be_a_link() {
        let (outside, _data) = folder();
        symlink("data", outside.path().join("current")).unwrap();
        let data = DataFolder::new(&outside.path().join("current"));
        assert_eq!(data.read("rows.csv", 100).unwrap(), "a,b\n");
        data.write("new.txt", "x").unwrap();
        assert!(outside.path().join("data/new.txt").exists());
    }

    #[test]
    fn a_data_folder_that_does_not_exist_yet_is_made_by_the_first_write() {
        let outside = tempfile::tempdir().unwrap();
        let data = DataFolder::new(&outside.path().join("data"));
        assert!(matches!(data.read("x", 1), Err(FileError::NotFound(_))));
        assert!(matches!(data.list(""), Err(FileError::NotFound(_))));
        data.write("x", "1").unwrap();
        assert_eq!(data.read("x", 1).unwrap(), "1");
    }

    #[test]
    fn files_are_read_up_to_a_size_and_only_as_text() {
        let (outside, data) = folder();
        assert_eq!(data.read("rows.csv", 4).unwrap(), "a,b\n");
        assert!(matches!(
            data.read("rows.csv", 3),
            Err(FileError::TooLarge { most: 3, .. })
        ));
        fs::write(outside.path().join("data/raw"), [0xff, 0xfe]).unwrap();
        assert!(matches!(data.read("raw", 100), Err(FileError::NotUtf8(_))));
        for path in ["sub", "none", "none/x", "rows.csv/x"] {
            let read = data.read(path, 100);
            assert!(matches!(read, Err(FileError::NotFound(_))), "{path}");
        }
    }

    #[test]
    fn a_move_replaces_nothing() {
        let (_outside, data) = folder();
        data.write("other.csv", "other").unwrap();
        for target in ["other.csv", "sub", "rows.csv"] {
            let Err(FileError::Io { source, .. }) = data.move_file("rows.csv", target) else {
                panic!("{target} is there");
            };
            assert_eq!(source.kind(), io::ErrorKind::AlreadyExists);
        }
        assert_eq!(data.read("other.csv", 100).unwrap(), "other");

        data.move_file("rows.csv", "done/2026/rows.csv").unwrap();
        assert_eq!(data.read("done/2026/rows.csv", 100).unwrap(), "a,b\n");
        for from in ["rows.csv", "sub"] {
            let again = data.move_file(from, "z");
            assert!(matches!(again, Err(FileError::NotFound(_))), "{from}");
        }
    }

    #[test]
    fn a_move_that_was_interrupted_is_finished_by_moving_again() {
        let (outside, data) = folder();
        let root = outside.path().join("data");
        fs::hard_link(root.join("rows.csv"), root.join("done.csv")).unwrap();
        data.move_file("rows.csv", "done.csv").unwrap();
        assert_eq!(names(&data.list("").unwrap()), ["done.csv", "sub"]);
    }

    proptest::proptest! {
        #[test]
        fn no_text_whatsoever_is_written_outside(path in "[./a\\\\\u{0}é]{0,12}") {
            let (outside, data) = folder();
            drop(data.write(&path, "x"));
            let mut beside: Vec<_> = fs::read_dir(outside.path())
                .unwrap()
                .map(|entry| entry.unwrap().file_name())
                .collect();
            beside.sort();
            proptest::prop_assert_eq!(beside, ["data", "secret.txt"]);
        }
    }
}
