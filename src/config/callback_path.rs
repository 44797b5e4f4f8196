//! The path that the gateway posts callbacks to: `/callbacks`.

use super::refusal::Refusal;

/// Reads an absolute path of plain segments. Characters that a router or a proxy might read as a
/// pattern or as encoding are refused, so that the path means the same to everybody on the way.
pub fn parse(text: &str) -> Result<String, Refusal> {
    let plain = |segment: &str| {
        !segment.is_empty()
            && !segment.bytes().all(|byte| byte == b'.')
            && segment
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte))
    };
    match text.strip_prefix('/') {
        Some("") => Ok(text.to_owned()),
        Some(rest) if rest.split('/').all(plain) => Ok(text.to_owned()),
        Some(_) | None => Err(Refusal::new(format!(
            "`{text}` is not a path, such as \"/callbacks\""
        ))
        .help("begin with `/` and use letters, digits and `- _ . ~` between single slashes")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_absolute_and_plain() {
        for text in ["/", "/callbacks", "/shop-1/call_backs/v2.0"] {
            assert_eq!(parse(text).unwrap(), text);
        }
        for text in [
            "",
            "callbacks",
            "/a/",
            "//a",
            "/a/../b",
            "/a b",
            "/{id}",
            "/a?b",
            "/%41",
        ] {
            assert_eq!(
                parse(text).unwrap_err().to_string(),
                format!(
                    "`{text}` is not a path, such as \"/callbacks\"; begin with `/` and use letters, digits and `- _ . ~` between single slashes"
                )
            );
        }
    }
}
