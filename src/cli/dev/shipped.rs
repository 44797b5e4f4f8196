//! What `dev` brings along for folders that have no scripts: the shipped ones, and a batch.

use std::io;
use std::path::Path;

/// Five payouts.
pub(super) const PAYOUTS: &str = include_str!("payouts.csv");

/// The shipped scripts by their path below the scripts folder.
const SCRIPTS: [(&str, &str); 4] = [
    (
        "lib/merchant.rhai",
        include_str!("../../../scripts/lib/merchant.rhai"),
    ),
    (
        "payouts.rhai",
        include_str!("../../../scripts/payouts.rhai"),
    ),
    (
        "refunds.rhai",
        include_str!("../../../scripts/refunds.rhai"),
    ),
    ("hooks.rhai", include_str!("../../../scripts/hooks.rhai")),
];

/// Writes the shipped scripts to a folder.
pub(super) fn write_scripts(folder: &Path) -> io::Result<()> {
    std::fs::create_dir_all(folder.join("lib"))?;
    SCRIPTS
        .iter()
        .try_for_each(|(path, source)| std::fs::write(folder.join(path), source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shipped_script_is_brought_along() {
        let folder = tempfile::tempdir().unwrap();
        write_scripts(folder.path()).unwrap();
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts");
        let read = |folder: &Path| crate::scripting::Sources::read(folder).unwrap();
        assert_eq!(read(folder.path()), read(&shipped));
    }
}
