//! What scripts may reach outside: HTTP to allowed origins, files below the data folder.
//!
//! Both are jails: the script says what it wants, the configuration says what there is, and
//! whatever is not clearly inside is refused. The runner calls them when a script's step is
//! performed, maps its requests to ours, and records what came back.

mod addresses;
mod files;
mod http;
mod jail;
mod request;
mod secrets;

pub use files::{DataFolder, Entry, FileError};
pub use http::{Answer, BuildError, HttpError, ScriptHttp};
pub use request::Request;
