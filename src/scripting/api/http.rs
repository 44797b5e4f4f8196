//! `http::`: requests to allowed origins. Which origins are open is decided by whoever sends them.

use rhai::{Dynamic, Map, Module, NativeCallContext};
use serde_json::Value;

use super::secret::{SecretText, plain};
use crate::scripting::current::{self, Called};
use crate::scripting::effects::{HttpRequest, Request, SECRET_MARK};
use crate::scripting::options::{Options, type_in_words};
use crate::scripting::reference::FunctionDoc;

/// Functions without and with a body.
const WITHOUT_BODY: [(&str, &str); 2] = [("get", "GET"), ("delete", "DELETE")];
const WITH_BODY: [(&str, &str); 3] = [("post", "POST"), ("put", "PUT"), ("patch", "PATCH")];

/// The namespace.
pub(super) fn module() -> Module {
    let mut module = Module::new();
    for (name, method) in WITHOUT_BODY {
        function!(module, name, |context, url: Dynamic| {
            send(&context, method, &url, None, Map::new())
        });
        function!(module, name, |context, url: Dynamic, options: Map| {
            send(&context, method, &url, None, options)
        });
    }
    for (name, method) in WITH_BODY {
        function!(module, name, |context, url: Dynamic, body: Dynamic| {
            send(&context, method, &url, Some(&body), Map::new())
        });
        function!(
            module,
            name,
            |context, url: Dynamic, body: Dynamic, options: Map| {
                send(&context, method, &url, Some(&body), options)
            }
        );
    }
    function!(module, "request", |context, method: &str, url: Dynamic| {
        request(&context, method, &url, Map::new())
    });
    function!(
        module,
        "request",
        |context, method: &str, url: Dynamic, options: Map| {
            request(&context, method, &url, options)
        }
    );
    module
}

fn request(
    context: &NativeCallContext,
    method: &str,
    url: &Dynamic,
    mut options: Map,
) -> Called<Dynamic> {
    let method = method.to_ascii_uppercase();
    let known = || WITHOUT_BODY.iter().chain(&WITH_BODY);
    if !known().any(|(_, word)| *word == method) {
        let words: Vec<&str> = known().map(|(_, word)| *word).collect();
        return Err(current::invalid(format!(
            "http::request takes one of {}, not `{method}`",
            words.join(", ")
        )));
    }
    let body = options.remove("body");
    send(context, &method, url, body.as_ref(), options)
}

fn send(
    context: &NativeCallContext,
    method: &str,
    url: &Dynamic,
    body: Option<&Dynamic>,
    options: Map,
) -> Called<Dynamic> {
    let mut options =
        Options::new("http", options, &["headers", "timeout"]).map_err(current::invalid)?;
    let timeout = options.duration("timeout").map_err(current::invalid)?;
    let headers = options.map("headers").map_err(current::invalid)?;
    let mut names_and_values = Vec::new();
    for (name, value) in headers.unwrap_or_default() {
        let value = header(&name, &value)?;
        names_and_values.push((name.to_string(), value));
    }
    let body: Option<Value> = body
        .map(|body| current::argument("http", body))
        .transpose()?;
    let request = HttpRequest {
        method: method.to_owned(),
        url: url_text(url)?,
        headers: names_and_values,
        body,
        timeout_ms: timeout.and_then(|timeout| u64::try_from(timeout.as_millis()).ok()),
    };
    current::step_value(context, "http", Request::Http(request))
}

fn header(name: &str, value: &Dynamic) -> Called<String> {
    if let Some(secret) = value.clone().try_cast::<SecretText>() {
        return Ok(secret.with_references().to_owned());
    }
    let is_plain = value.is_string() || value.is_int() || value.is_decimal() || value.is_bool();
    if !is_plain {
        let found = type_in_words(value);
        return Err(current::invalid(format!(
            "header `{name}` must be a text, a number or a secret, not {found}"
        )));
    }
    no_stars(&value.to_string()).map(str::to_owned)
}

/// The URL, with secrets between `//` and `@` only.
fn url_text(url: &Dynamic) -> Called<String> {
    if let Ok(text) = url.as_immutable_string_ref() {
        return no_stars(&text).map(str::to_owned);
    }
    let Some(secret) = url.clone().try_cast::<SecretText>() else {
        let found = type_in_words(url);
        return Err(current::invalid(format!("a URL is a text, not {found}")));
    };
    let text = secret.with_references();
    let outside_of_user = || -> Option<String> {
        let (scheme, rest) = text.split_once("://")?;
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at_checked(end)?;
        let (_, host) = authority.rsplit_once('@')?;
        Some(format!("{scheme}{host}{path}"))
    };
    match outside_of_user() {
        Some(outside) if !outside.contains(SECRET_MARK) => Ok(text.to_owned()),
        Some(_) | None => Err(current::invalid(
            "a secret in a URL can only be the user or the password, as in https://user:password@host/",
        )),
    }
}

/// A text that is neither a forged reference nor a secret that was printed into a text.
fn no_stars(text: &str) -> Called<&str> {
    if text.contains("***") {
        return Err(current::invalid(
            "the text has *** in it: a secret was put into a text with ${…}; use + instead, as in \
             \"Bearer \" + secret(\"NAME\")",
        ));
    }
    plain(text)
}

/// The reference.
pub(super) fn docs() -> Vec<FunctionDoc> {
    let doc = |name, signature, text, example: &str| FunctionDoc {
        namespace: "http",
        name,
        signature,
        text,
        example: example.to_owned(),
    };
    let body = "Maps and lists are sent as JSON. Every write carries an Idempotency-Key derived \
                from the run and the step. Options and answer as in `http::get`.";
    vec![
        doc(
            "get",
            "get(url, [options])",
            "Asks an origin in `scripts.http.allow`; answers `#{ status, headers, body }`, where \
             `body` is parsed when it is JSON. A status of 400 or above is the error \
             `http_status`, no answer is `http_unavailable`.\n\
             Options: `headers` (a map), `timeout` (a duration).",
            r#"let rate = http::get("https://shop.example/rate", #{ timeout: "5s" }).body.rate;"#,
        ),
        doc(
            "delete",
            "delete(url, [options])",
            "Options and answer as in `http::get`.",
            r#"http::delete("https://shop.example/holds/7");"#,
        ),
        doc(
            "post",
            "post(url, body, [options])",
            body,
            r#"http::post("https://shop.example/credit", #{ customer: 7, amount: 0.5 });"#,
        ),
        doc(
            "put",
            "put(url, body, [options])",
            body,
            r#"http::put("https://shop.example/orders/7", #{ paid: true });"#,
        ),
        doc(
            "patch",
            "patch(url, body, [options])",
            body,
            r#"http::patch("https://shop.example/orders/7", #{ paid: true });"#,
        ),
        doc(
            "request",
            "request(method, url, [options])",
            "As the others, with the method as a text and the body as the option `body`.",
            r#"http::request("POST", "https://shop.example/credit", #{ body: #{ customer: 7 } });"#,
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scripting::Ended;
    use crate::scripting::effects::Code;
    use crate::scripting::fake_world::{FakeWorld, execute_with, returned};

    #[test]
    fn a_request_arrives_as_it_was_written_with_secrets_by_reference() {
        let world = FakeWorld::new();
        returned(
            &world,
            r#"http::post("https://" + secret("SHOP_TOKEN") + ":x@shop.example/credit", #{ amount: 1.50 }, #{
                headers: #{ authorization: "Bearer " + secret("SHOP_TOKEN"), "x-count": 3 },
                timeout: "5s",
            });
            http::request("delete", "https://shop.example/7");
            print(secret("SHOP_TOKEN"));
            log::info(`${secret("SHOP_TOKEN")}`);"#,
        );
        let reference = format!("{SECRET_MARK}SHOP_TOKEN{SECRET_MARK}");
        let asked = world.asked();
        let Some(Request::Http(request)) = asked.first() else {
            panic!("{asked:?}");
        };
        assert_eq!(
            request.url,
            format!("https://{reference}:x@shop.example/credit")
        );
        assert_eq!(
            request.headers,
            [
                ("authorization".to_owned(), format!("Bearer {reference}")),
                ("x-count".to_owned(), "3".to_owned()),
            ]
        );
        assert_eq!(
            request.body.as_ref().unwrap().to_string(),
            r#"{"amount":1.50}"#
        );
        assert_eq!(request.timeout_ms, Some(5000));
        assert!(matches!(asked.get(1), Some(Request::Http(r)) if r.method == "DELETE"));
        assert_eq!(world.logged(), ["***", "***"]);
    }

    #[test]
    fn secrets_cannot_be_forged_printed_into_texts_or_sent_anywhere_else() {
        for body in [
            "http::post(\"https://shop.example/\", #{ x: secret(\"SHOP_TOKEN\") })",
            "http::post(\"https://shop.example/\", secret(\"SHOP_TOKEN\"))",
            "http::get(\"https://shop.example/?k=\" + secret(\"SHOP_TOKEN\"))",
            "http::get(\"https://shop.example/\", #{ headers: #{ a: `${secret(\"SHOP_TOKEN\")}` } })",
            "http::get(\"https://shop.example/\", #{ headers: #{ a: \"\\x01SHOP_TOKEN\\x01\" } })",
            "http::get(\"https://\\x01SHOP_TOKEN\\x01@shop.example/\")",
            "let s = secret(\"SHOP_TOKEN\") + \"\\x01OTHER\\x01\"; http::get(s)",
            "state::set(\"k\", secret(\"SHOP_TOKEN\"))",
            "emit(\"e\", [secret(\"SHOP_TOKEN\")])",
            "let name = \"NOBODY\"; secret(name)",
            "http::request(\"TRACE\", \"https://shop.example/\")",
            "http::get(\"https://shop.example/\", #{ header: #{} })",
            "http::get(7)",
        ] {
            let world = FakeWorld::new();
            let Ended::Failed(error) = execute_with(&world, body, &Value::Null) else {
                panic!("{body} does not fail");
            };
            assert_eq!(error.failure.unwrap().code, Code::InvalidArgument, "{body}");
            assert_eq!(world.asked(), [], "{body}");
        }
    }

    fn url(text: &str) -> Called<String> {
        let text = text.replace('$', &SECRET_MARK.to_string());
        url_text(&Dynamic::from(SecretText::with_text(&text)))
    }

    #[test]
    fn secrets_stand_in_the_user_part_of_a_url_and_nowhere_else() {
        assert!(url("https://$U$:$P$@shop.example/a?b#c").is_ok());
        for bad in [
            "https://shop.example/$U$",
            "https://shop.example/?key=$U$",
            "https://$U$.example/",
            "https://shop.example/a@$U$",
            "https://u@$U$/",
            "$U$",
            "$U$://a@b/",
            "https://shop.example#$U$@x",
        ] {
            assert!(url(bad).is_err(), "{bad}");
        }
    }
}
