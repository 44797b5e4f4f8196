//! Shapes of texts that several operations share. Each answers with the rest of a sentence about
//! the field.

use chrono::NaiveDate;
use url::{Host, Url};

/// An https URL with a domain name, as the gateway demands for return and shop URLs.
pub(super) fn https_url(text: &str) -> Result<(), String> {
    let bad = || "must be an https URL with a domain name".to_owned();
    let url = Url::parse(text).map_err(|_| bad())?;
    match url.host() {
        Some(Host::Domain(_)) if url.scheme() == "https" => Ok(()),
        Some(Host::Domain(_) | Host::Ipv4(_) | Host::Ipv6(_)) | None => Err(bad()),
    }
}

/// Something that looks like an e-mail address; whether it exists only a mail can tell.
pub(super) fn email(text: &str) -> Result<(), String> {
    let looks_right = text.split_once('@').is_some_and(|(local, domain)| {
        !local.is_empty()
            && !domain.contains('@')
            && domain.split('.').count() > 1
            && domain.split('.').all(|label| !label.is_empty())
    });
    if looks_right && !text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        Ok(())
    } else {
        Err("must be an e-mail address".to_owned())
    }
}

/// A calendar date, `YYYY-MM-DD`.
pub(super) fn date(text: &str) -> Result<(), String> {
    let exact = text.len() == 10
        && text.starts_with(|c: char| c.is_ascii_digit())
        && NaiveDate::parse_from_str(text, "%Y-%m-%d").is_ok();
    if exact {
        Ok(())
    } else {
        Err("must be a date such as 1990-12-31".to_owned())
    }
}

/// An ISO 3166 alpha-3 country code. Which ones exist is the gateway's to say.
pub(super) fn country(text: &str) -> Result<(), String> {
    if text.len() == 3 && text.bytes().all(|b| b.is_ascii_uppercase()) {
        Ok(())
    } else {
        Err("must be a country code of three capital letters, such as DEU".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_https_with_a_domain_name() {
        assert!(https_url("https://shop.example/thanks?x=1").is_ok());
        for text in [
            "http://shop.example/",
            "https://10.0.0.1/",
            "https://[::1]/",
            "shop.example",
            "",
            "javascript:alert(1)",
        ] {
            assert!(https_url(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_email_has_one_at_sign_and_a_domain_with_a_point() {
        assert!(email("ana@mail.example").is_ok());
        for text in [
            "", "ana", "@x.y", "a@b", "a@b..c", "a b@c.d", "a@b@c.d", "a@.d",
        ] {
            assert!(email(text).is_err(), "{text}");
        }
    }

    #[test]
    fn dates_are_real_and_written_in_full() {
        assert!(date("2000-02-29").is_ok());
        for text in ["2001-02-29", "2000-2-9", "29.02.2000", "+200-02-01", ""] {
            assert!(date(text).is_err(), "{text}");
        }
    }

    #[test]
    fn countries_are_three_capital_letters() {
        assert!(country("DEU").is_ok());
        for text in ["DE", "deu", "DEUT", ""] {
            assert!(country(text).is_err(), "{text}");
        }
    }
}
