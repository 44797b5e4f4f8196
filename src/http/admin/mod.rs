//! The admin listener: health, metrics, the JSON API below `/api/v1`, and a page that shows it.
//!
//! | path | needs |
//! |---|---|
//! | `/healthz`, `/readyz` | nothing |
//! | `/` (the page, without data) | a local `Host`, unless a token is configured |
//! | `/metrics`, `/api/v1/…` | a token, and the role that the route states; without any token, a local `Host` |
//!
//! Everything is read from the runner's views, on threads that may block; nothing is cached.

mod access;
mod api;
mod approvals;
mod failure;
mod filters;
mod money;
mod policy;

use axum::extract::State;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{Method, Uri};
use axum::middleware::from_fn_with_state;
use axum::response::{Html, IntoResponse};
use axum::routing::{MethodRouter, get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

use crate::config;
use crate::domain::person::Role;
use crate::runner::Handle;
use crate::telemetry::Telemetry;
use access::{Access, Needs};
use failure::Failure;

/// What the routes need.
#[derive(Debug, Clone)]
struct Admin {
    handle: Handle,
    telemetry: Telemetry,
}

/// The routes of the admin listener.
///
/// With tokens configured, callers present theirs as `Authorization: Bearer …`. Without one (which
/// the configuration allows on loopback only) everybody on the machine is let in, but requests for
/// another `Host` than this machine are refused, or any page in a browser could reach it through a
/// name that it lets point here.
pub fn admin(handle: Handle, config: &config::Admin, telemetry: &Telemetry) -> Router {
    let access = Access::new(config, telemetry);
    let may_look = from_fn_with_state(Needs(Role::View, "looking"), access::require_role);
    let api = looking().route_layer(may_look.clone());
    let api = api.merge(steering()).merge(deciding());
    Router::new()
        .nest("/api/v1", api)
        .route("/metrics", get(metrics).route_layer(may_look))
        .route_layer(from_fn_with_state(access.clone(), access::require_token))
        .route("/", get(page))
        .route_layer(from_fn_with_state(access, access::require_local_host))
        .route("/healthz", get(alive))
        .route("/readyz", get(ready))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .with_state(Admin {
            handle,
            telemetry: telemetry.clone(),
        })
}

/// What shows something. Each needs the role `view`.
fn looking() -> Router<Admin> {
    Router::new()
        .route("/overview", get(api::overview))
        .route("/runs", get(api::runs))
        .route("/runs/{id}", get(api::run))
        .route("/runs/{id}/logs", get(api::run_logs))
        .route("/payments", get(api::payments))
        .route("/payments/{*id}", get(api::payment))
        .route("/why/{*id}", get(api::why))
        .route("/batches", get(api::batches))
        .route("/batches/{*id}", get(api::batch))
        .route("/callbacks", get(api::callbacks))
        .route("/callbacks/{*id}", get(api::callback))
        .route("/schedules", get(api::schedules))
        .route("/schedules/history/{*name}", get(api::slot_history))
        .route("/scripts", get(api::scripts))
        .route("/policy/test", post(policy::test))
        .route("/pause", get(money::pauses))
}

/// What steers runs and stops money. Each needs the role `operate`.
fn steering() -> Router<Admin> {
    let routes = [
        ("/runs/{id}/retry", "retrying runs", post(api::retry)),
        ("/runs/{id}/cancel", "cancelling runs", post(api::cancel)),
        ("/trigger", "firing schedules", post(api::trigger)),
        ("/backup", "making backups", post(api::backup)),
        ("/pause", "pausing money", post(money::pause)),
        ("/resume", "resuming money", post(money::resume)),
        (
            "/edited",
            "noting who edited a script",
            post(approvals::edited),
        ),
    ];
    guarded(Role::Operate, routes)
}

/// What decides about money. Each needs the role `approve`.
fn deciding() -> Router<Admin> {
    let routes = [
        ("/approve", "approving", post(approvals::approve)),
        ("/reject", "rejecting", post(approvals::reject)),
        ("/resolve", "resolving", post(approvals::resolve)),
    ];
    guarded(Role::Approve, routes)
}

/// Routes that need a role, each with what it does, for the refusal.
fn guarded<const N: usize>(
    role: Role,
    routes: [(&str, &'static str, MethodRouter<Admin>); N],
) -> Router<Admin> {
    let none = Router::new();
    routes
        .into_iter()
        .fold(none, |guarded, (path, action, route)| {
            let needs = from_fn_with_state(Needs(role, action), access::require_role);
            guarded.route(path, route.route_layer(needs))
        })
}

async fn alive() -> Json<Value> {
    Json(json!({"alive": true}))
}

async fn ready(State(admin): State<Admin>) -> Result<Json<Value>, Failure> {
    if admin.handle.is_poisoned() {
        return Err(Failure::not_ready(
            "store_poisoned",
            "the store refuses writes until the next start",
        ));
    }
    let scripts = admin.handle.scripts();
    let scripts = scripts.get("scripts").and_then(Value::as_array);
    if scripts.is_none_or(Vec::is_empty) {
        return Err(Failure::not_ready(
            "no_scripts",
            "no scripts are loaded: the folder is empty, or they are not compiled yet",
        ));
    }
    // Everybody may ask this, so it says neither who nor why.
    let paused = admin.handle.paused_scopes();
    Ok(Json(json!({"ready": true, "paused": paused})))
}

async fn metrics(State(admin): State<Admin>) -> impl IntoResponse {
    let text = admin.telemetry.metrics().render();
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], text)
}

/// The page holds no data; its script asks the API.
async fn page() -> impl IntoResponse {
    let headers = [
        (
            CONTENT_SECURITY_POLICY,
            "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; \
             connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
             require-trusted-types-for 'script'",
        ),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (CACHE_CONTROL, "no-store"),
    ];
    (headers, Html(include_str!("../overview.html")))
}

async fn unknown_path(uri: Uri) -> Failure {
    Failure::not_found(format!("there is nothing at {}", uri.path()))
}

async fn wrong_method(method: Method, uri: Uri) -> Failure {
    Failure::wrong_method(format!("{method} is not possible at {}", uri.path()))
}
