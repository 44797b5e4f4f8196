//! What each kind of step does, once it is known that it must be done.

use chrono::TimeDelta;
use serde_json::{Value, json};

use super::batch;
use super::buffer::{AccessError, Emission, LogLine};
use super::failures::{file_failure, http_failure, invalid, paid, pay_stop, rejected, unavailable};
use super::payments::{PaymentRequest, content, name_payment};
use super::world::{Progress, World};
use crate::domain::id::ForeignId;
use crate::domain::idempotency;
use crate::domain::operation::{Effect, Operation};
use crate::domain::payment::Origin;
use crate::gateway::{Disposition, prepare};
use crate::outbound::{self, DataFolder, FileError};
use crate::scripting::effects::{
    Code, Failure, FileAccess, HttpRequest, Interrupt, Request, Site, Space, StateAccess, Stop,
};
use crate::store::Changes;
use crate::store::schema::ADDRESSES;

/// The largest file a script may read, in bytes.
const MAX_FILE: u64 = 16 * 1024 * 1024;

impl World {
    /// Performs a step. Writes to the store are left in the buffer.
    pub(super) fn step(
        &self,
        progress: &mut Progress,
        step: u64,
        request: Request,
        site: &Site,
    ) -> Result<Value, Stop> {
        match request {
            Request::Gateway {
                operation,
                arguments,
            } => self.gateway(progress, step, operation, arguments, site),
            Request::Pay {
                operation,
                arguments,
            } => self.pay(progress, step, operation, arguments, site),
            Request::PayAll {
                payments,
                concurrency,
                approve,
            } => {
                let key = |row| idempotency::derive(self.position(progress, step, row));
                let origin = self.origin(step, site);
                let requests = batch::check_all(self, payments, key, &origin)?;
                let requests = self.approved(progress, step, requests, approve)?;
                batch::pay_all(self, requests, concurrency)
            }
            Request::Payment { foreign_id } => self.find_payment(&foreign_id),
            Request::State { space, access } => self.access_state(progress, space, access),
            Request::OnceBegin { key } => self.begin_once(progress, step, key),
            Request::OnceEnd { key, value } => {
                let script = self.run.handler.script.clone();
                progress.buffer.record_once(script, key, value);
                Ok(Value::Null)
            }
            Request::Emit {
                event,
                value,
                after_ms,
            } => {
                self.emit(progress, step, event, value, after_ms);
                Ok(Value::Null)
            }
            Request::Http(request) => {
                let key = idempotency::derive(self.position(progress, step, 0));
                self.http(request, &key)
            }
            Request::File(access) => {
                file(&self.context.files, access).map_err(|error| file_failure(&error).into())
            }
            Request::Wait { on, timeout_ms } => self.answer_wait(progress, step, &on, timeout_ms),
            Request::Now => Ok(Value::from(self.context.clock.now().timestamp_millis())),
            Request::Log {
                level,
                text,
                fields,
            } => {
                progress.buffer.log(LogLine {
                    level,
                    text,
                    fields,
                });
                Ok(Value::Null)
            }
        }
    }

    fn gateway(
        &self,
        progress: &Progress,
        step: u64,
        operation: Operation,
        arguments: Value,
        site: &Site,
    ) -> Result<Value, Stop> {
        match (operation, operation.effect()) {
            (Operation::TakeAddress, _) => self.take_address(&arguments),
            (_, Effect::Read) => self.ask_gateway(operation, &arguments),
            (_, Effect::Create | Effect::Pay) => {
                self.pay(progress, step, operation, arguments, site)
            }
        }
    }

    fn emit(&self, progress: &mut Progress, step: u64, kind: String, value: Value, after_ms: u64) {
        let delay = TimeDelta::milliseconds(i64::try_from(after_ms).unwrap_or(i64::MAX));
        let at = self.context.clock.now().checked_add_signed(delay);
        progress.buffer.emit(Emission {
            key: format!("custom:{}:{step}", self.run.id),
            kind,
            value,
            at: at.filter(|_| after_ms > 0),
        });
    }

    fn access_state(
        &self,
        progress: &mut Progress,
        space: Space,
        access: StateAccess,
    ) -> Result<Value, Stop> {
        let space = match space {
            Space::Script => self.run.handler.script.as_str(),
            Space::Shared => "",
        };
        progress
            .buffer
            .access(&self.context.store, space, access)
            .map_err(|error| match error {
                AccessError::Script(failure) => failure.into(),
                AccessError::Read(error) => self.unreadable(&error),
            })
    }

    fn find_payment(&self, foreign_id: &str) -> Result<Value, Stop> {
        let Ok(foreign_id) = foreign_id.parse::<ForeignId>() else {
            return Ok(Value::Null);
        };
        let found = self
            .context
            .payments
            .find(&foreign_id)
            .map_err(|error| self.unreadable(&error))?;
        Ok(found.map_or(Value::Null, |payment| payment.view()))
    }

    /// Waits on the script's thread, until the run's deadline.
    pub(super) fn wait<T>(&self, future: impl Future<Output = T>) -> Result<T, Stop> {
        self.context
            .tokio
            .block_on(async { tokio::time::timeout_at(self.deadline, future).await })
            .map_err(|_| Stop::Interrupt(Interrupt::Deadline))
    }

    pub(super) fn origin(&self, step: u64, site: &Site) -> Origin {
        Origin {
            run: self.run.id,
            handler: self.run.handler.clone(),
            step,
            file: site.file.clone(),
            line: site.line,
            set: self.run.set.as_str().to_owned(),
        }
    }

    pub(super) fn ask_gateway(
        &self,
        operation: Operation,
        arguments: &Value,
    ) -> Result<Value, Stop> {
        let prepared = prepare(operation, arguments).map_err(|errors| invalid(&errors))?;
        match self.wait(self.context.gateway.send(&prepared))? {
            Disposition::Accepted(data) => Ok(data),
            Disposition::Rejected(rejection) => Err(rejected(&rejection).into()),
            Disposition::NotSent { reason } | Disposition::Unknown { reason, .. } => {
                Err(unavailable(operation, &reason).into())
            }
        }
    }

    /// An address that was taken once is remembered for ever: the gateway does not say whether
    /// asking again gives the same one.
    fn take_address(&self, arguments: &Value) -> Result<Value, Stop> {
        let field = |name: &str| {
            arguments
                .get(name)
                .and_then(Value::as_str)
                .unwrap_or("")
                .to_owned()
        };
        let key = (field("foreign_id"), field("currency"), field("convert_to"));
        let _one_at_a_time = self.wait(self.context.address_locks.lock(&key))?;
        let known = self
            .context
            .store
            .get(&ADDRESSES, &key)
            .map_err(|error| self.unreadable(&error))?;
        if let Some(address) = known {
            return Ok(address);
        }
        let address = self.ask_gateway(Operation::TakeAddress, arguments)?;
        let mut changes = Changes::new();
        changes.put(&ADDRESSES, &key, &address);
        self.commit(changes)?;
        Ok(address)
    }

    fn pay(
        &self,
        progress: &Progress,
        step: u64,
        operation: Operation,
        mut arguments: Value,
        site: &Site,
    ) -> Result<Value, Stop> {
        let derive = || idempotency::derive(self.position(progress, step, 0));
        let foreign_id = name_payment(&mut arguments, derive)
            .map_err(|error| invalid(std::slice::from_ref(&error)))?;
        let prepared = prepare(operation, &arguments).map_err(|errors| invalid(&errors))?;
        let request = PaymentRequest {
            foreign_id,
            content: content(operation, &prepared),
            origin: self.origin(step, site),
            batch: 1,
            plan: None,
            approvals: Vec::new(),
        };
        // A task of its own: the script's deadline ends the waiting, never the payment.
        let payments = self.context.payments.clone();
        let task = self
            .context
            .tokio
            .spawn(async move { payments.pay(request).await });
        match self.wait(task)? {
            Ok(Ok(payment)) => paid(&payment),
            Ok(Err(error)) => Err(pay_stop(self, error)),
            Err(_) => Err(Stop::Interrupt(Interrupt::Poisoned)),
        }
    }

    fn http(&self, request: HttpRequest, key: &ForeignId) -> Result<Value, Stop> {
        let request = outbound::Request {
            method: request.method,
            url: request.url,
            headers: request.headers,
            body: request.body,
            timeout: request.timeout_ms.map(std::time::Duration::from_millis),
        };
        match self.wait(self.context.http.send(&request, key.as_str()))? {
            Ok(answer) if answer.status < 400 => Ok(answer.to_json()),
            Ok(answer) => Err(Failure {
                code: Code::HttpStatus,
                message: format!(
                    "the answer to {} has status {}",
                    request.method, answer.status
                ),
                details: answer.to_json(),
            }
            .into()),
            Err(error) => Err(http_failure(&error).into()),
        }
    }
}

/// Performs a step on the data folder.
fn file(files: &DataFolder, access: FileAccess) -> Result<Value, FileError> {
    match access {
        FileAccess::Read { path } => files.read(&path, MAX_FILE).map(Value::String),
        FileAccess::Write { path, text } => files.write(&path, &text).map(|()| Value::Null),
        FileAccess::Move { from, to } => files.move_file(&from, &to).map(|()| Value::Null),
        FileAccess::List { path } => Ok(files
            .list(&path)?
            .into_iter()
            .map(|file| json!({"name": file.name, "size": file.size, "is_dir": file.is_dir}))
            .collect()),
    }
}
