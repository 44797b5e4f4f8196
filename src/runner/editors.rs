//! Who edited a script last, as people have noted it.
//!
//! A note is about one version of a script: its own file and every file that it could import, which
//! are those that register no handlers. So when any of these changes, nobody is known to have
//! edited it, until somebody notes it again. Asked on the money path, where a script's last editor
//! may not approve its payments.

use std::sync::Arc;

use serde_json::{Value, json};

use super::approvals::NotDecided;
use super::generations::{Generations, SetError};
use super::handle::Handle;
use crate::domain::clock::shown;
use crate::domain::id::SetHash;
use crate::domain::payment::Origin;
use crate::scripting::ScriptSet;
use crate::store::schema::{EDITORS, Editor};
use crate::store::{Changes, Store};

/// Knows the last editors of scripts.
#[derive(Debug)]
pub(super) struct Editors {
    store: Store,
    generations: Arc<Generations>,
}

impl Editors {
    pub(super) fn new(store: Store, generations: Arc<Generations>) -> Self {
        Self { store, generations }
    }

    /// The last editor of the script that asked, in the version that asked; `None` when nobody has
    /// noted it, or that version cannot be had any more.
    pub(super) fn of(&self, origin: &Origin) -> Result<Option<Editor>, NotDecided> {
        let hash: Result<SetHash, _> = serde_json::from_value(json!(origin.set));
        let Ok(hash) = hash else {
            return Ok(None);
        };
        let set = match self.generations.pinned(&hash) {
            Ok(set) => set,
            Err(SetError::Missing(_) | SetError::Broken { .. }) => return Ok(None),
            Err(SetError::Read(error)) => return Err(error.into()),
        };
        let script = &origin.handler.script;
        let version = version(&set, script);
        Ok(self.store.get(&EDITORS, &(script.clone(), version))?)
    }
}

/// The hash of everything that decides what the script does.
fn version(set: &ScriptSet, script: &str) -> String {
    let own = format!("{script}.rhai");
    let can_be_imported = |path: &str| {
        let file = set.scripts().iter().find(|file| file.path == path);
        file.is_none_or(|file| file.handlers.is_empty())
    };
    let sources = set.sources().iter();
    let sources = sources.filter(|(path, _)| *path == own || can_be_imported(path));
    SetHash::of(sources).as_str().to_owned()
}

impl Handle {
    /// Notes who edited a script last, in the version that is in use. On disk when this returns
    /// `{"script", "version", "by", "at"}`.
    ///
    /// # Errors
    /// When no such script is in use, or the store cannot write.
    pub async fn note_editor(&self, script: &str, by: &str) -> Result<Value, NotDecided> {
        let context = &self.context;
        let script = script.strip_suffix(".rhai").unwrap_or(script);
        let set = context.generations.current();
        if set.sources().get(&format!("{script}.rhai")).is_none() {
            return Err(NotDecided::NotFound {
                what: "script",
                id: script.to_owned(),
            });
        }
        let version = version(&set, script);
        let editor = Editor {
            by: by.to_owned(),
            at: context.clock.now(),
        };
        let mut changes = Changes::new();
        changes.put(&EDITORS, &(script.to_owned(), version.clone()), &editor);
        context.store.commit(changes).await?;
        context.telemetry.editor_noted(script, by);
        Ok(json!({
            "script": script,
            "version": version,
            "by": editor.by,
            "at": shown(editor.at),
        }))
    }
}
