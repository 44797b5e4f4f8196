//! Reads a cron expression and a zone name, and says everything that is wrong with them at once.
//!
//! The grammar itself is croner's. Croner reports a mistake without its place, so each field is
//! tried on its own when the whole is refused. Called by [`super::Schedule::parse`] only.

use chrono_tz::Tz;
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};

use crate::domain::diagnostic::closest;

/// Everything that is wrong with a schedule. Each text is a lower-case fragment that names the
/// thing, says where it stands and how to write it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .mistakes.join("; "))]
pub struct ScheduleError {
    /// At least one.
    pub mistakes: Vec<String>,
}

impl ScheduleError {
    pub(super) fn one(mistake: String) -> Self {
        Self {
            mistakes: vec![mistake],
        }
    }
}

struct Field {
    name: &'static str,
    words: &'static [&'static str],
    help: &'static str,
}

const WEEKDAYS: [&str; 8] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT", "L"];
const MONTHS: [&str; 12] = [
    "JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC",
];
const NICKNAMES: [&str; 6] = [
    "@yearly",
    "@annually",
    "@monthly",
    "@weekly",
    "@daily",
    "@hourly",
];

const FIELDS: [Field; 6] = [
    Field {
        name: "seconds",
        words: &[],
        help: "0 to 59, such as `0`, `0,30`, `0-10` or `*/15`",
    },
    Field {
        name: "minutes",
        words: &[],
        help: "0 to 59, such as `0`, `0,30`, `0-10` or `*/15`",
    },
    Field {
        name: "hours",
        words: &[],
        help: "0 to 23, such as `9`, `9,17`, `9-17` or `*/4`",
    },
    Field {
        name: "days of the month",
        words: &["L", "W"],
        help: "1 to 31, such as `1`, `1,15`, `1-7`, `L` for the last day or `15W` for the working day nearest to the 15th",
    },
    Field {
        name: "months",
        words: &MONTHS,
        help: "1 to 12 or JAN to DEC, such as `1`, `JAN,JUL` or `*/3`",
    },
    Field {
        name: "weekdays",
        words: &WEEKDAYS,
        help: "0 to 7 or SUN to SAT (0 and 7 are both Sunday), such as `MON-FRI`, `SAT,SUN`, `MON#2` for the second Monday or `FRIL` for the last Friday",
    },
];

/// Reads both, or says what is wrong with both.
pub(super) fn read(expression: &str, zone: &str) -> Result<(Cron, Tz), ScheduleError> {
    match (read_cron(expression), read_zone(zone)) {
        (Ok(cron), Ok(zone)) => Ok((cron, zone)),
        (cron, zone) => {
            let mut mistakes = cron.err().unwrap_or_default();
            mistakes.extend(zone.err());
            Err(ScheduleError { mistakes })
        }
    }
}

/// Whether the schedule follows elapsed time — some field of the time of day begins with a star —
/// rather than naming times of day.
pub(super) fn follows_elapsed_time(expression: &str) -> bool {
    let expression = expression.trim();
    if expression.starts_with('@') {
        return expression.eq_ignore_ascii_case("@hourly");
    }
    let fields: Vec<&str> = expression.split_whitespace().collect();
    fields
        .iter()
        .take(fields.len().saturating_sub(3))
        .any(|field| field.starts_with('*'))
}

fn parser() -> CronParser {
    CronParser::builder()
        .seconds(Seconds::Optional)
        .year(Year::Disallowed)
        .build()
}

fn read_cron(expression: &str) -> Result<Cron, Vec<String>> {
    let trimmed = expression.trim();
    if trimmed.starts_with('@') {
        return read_nickname(trimmed).map_err(|mistake| vec![mistake]);
    }
    let texts: Vec<&str> = trimmed.split_whitespace().collect();
    let Some(first) = FIELDS
        .len()
        .checked_sub(texts.len())
        .filter(|left| *left <= 1)
    else {
        return Err(vec![format!(
            "`{trimmed}` has {} fields, not 5 or 6: [seconds] minutes hours days-of-the-month months weekdays, such as `0 9 * * MON-FRI`",
            texts.len()
        )]);
    };
    let mistakes: Vec<String> = FIELDS
        .iter()
        .enumerate()
        .skip(first)
        .zip(&texts)
        .filter_map(|((index, field), text)| {
            let reason = wrong_with(index, field, text)?;
            Some(format!(
                "`{text}` in field {} of `{trimmed}`: {reason}; {} are {}",
                index - first + 1,
                field.name,
                field.help
            ))
        })
        .collect();
    if !mistakes.is_empty() {
        return Err(mistakes);
    }
    parser()
        .parse(trimmed)
        .map_err(|error| vec![format!("`{trimmed}`: {}", fragment(&error.to_string()))])
}

fn read_nickname(text: &str) -> Result<Cron, String> {
    if NICKNAMES
        .iter()
        .any(|known| known.eq_ignore_ascii_case(text))
    {
        return parser()
            .parse(text)
            .map_err(|error| format!("`{text}`: {}", fragment(&error.to_string())));
    }
    let meant = closest(&text.to_lowercase(), NICKNAMES).map_or_else(
        || format!("known are {}", NICKNAMES.join(", ")),
        |near| format!("did you mean `{near}`?"),
    );
    Err(format!("`{text}` is not a schedule; {meant}"))
}

/// What is wrong with one field, if anything.
fn wrong_with(index: usize, field: &Field, text: &str) -> Option<String> {
    if text.split(',').any(str::is_empty) {
        return Some("an element of the list is empty".to_owned());
    }
    let upper = text.to_uppercase();
    let unknown = upper
        .split(|c: char| !c.is_alphabetic())
        .find(|word| !word.is_empty() && !is_word(field, word));
    if let Some(word) = unknown {
        return Some(format!("`{word}` means nothing here"));
    }
    let probe: Vec<&str> = (0..FIELDS.len())
        .map(|at| if at == index { text } else { "*" })
        .collect();
    let error = parser().parse(&probe.join(" ")).err()?;
    let reason = fragment(&error.to_string());
    Some(if reason.contains("range") {
        format!("{reason} (a range runs upward: instead of `22-2` write `22-23,0-2`)")
    } else {
        reason
    })
}

/// A name of the field, or a weekday's name followed by `L`.
fn is_word(field: &Field, word: &str) -> bool {
    field.words.contains(&word)
        || (field.name == "weekdays"
            && word
                .strip_suffix('L')
                .is_some_and(|day| WEEKDAYS.contains(&day) && day != "L"))
}

/// Croner's sentence as a fragment without its prefix.
fn fragment(sentence: &str) -> String {
    let text = sentence
        .split_once(": ")
        .map_or(sentence, |(_, rest)| rest)
        .trim_end_matches('.');
    let mut characters = text.chars();
    characters.next().map_or_else(String::new, |first| {
        first.to_lowercase().chain(characters).collect()
    })
}

fn read_zone(zone: &str) -> Result<Tz, String> {
    zone.parse::<Tz>().map_err(|_| {
        let names = || chrono_tz::TZ_VARIANTS.iter().map(|zone| zone.name());
        let wanted = zone.trim().to_lowercase().replace(' ', "_");
        let city = |name: &&str| {
            name.rsplit('/')
                .next()
                .is_some_and(|last| last.to_lowercase() == wanted)
        };
        let near = names()
            .find(|name| name.to_lowercase() == wanted)
            .or_else(|| names().find(city))
            .or_else(|| closest(zone, names()));
        match near {
            Some(near) => format!("`{zone}` is not a time zone; did you mean `{near}`?"),
            None => format!(
                "`{zone}` is not a time zone; write an IANA name such as `UTC` or `Europe/Berlin`"
            ),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistakes(expression: &str, zone: &str) -> String {
        read(expression, zone).unwrap_err().to_string()
    }

    #[test]
    fn every_documented_form_is_read() {
        for expression in [
            "0 9 * * MON-FRI",
            "30 0 9 * * mon-fri",
            "*/15 * * * *",
            "0 0 L * *",
            "0 9 * * MON#2",
            "0 9 * * 5#L",
            "0 9 * * FRIL",
            "0 9 15W * ?",
            "0 9 1 JAN,JUL *",
            "0 9 1 * +MON",
            "  0   9 * * 7 ",
            "@daily",
            "@Hourly",
            "@annually",
        ] {
            assert!(read(expression, "UTC").is_ok(), "{expression}");
        }
    }

    #[test]
    fn each_mistake_says_what_where_and_how_to_write_it() {
        insta::assert_snapshot!(
            [
                mistakes("0 25 * * *", "UTC"),
                mistakes("60 9 * 13 *", "UTC"),
                mistakes("0 9 * * FRI-MON", "UTC"),
                mistakes("0 9 * MON *", "UTC"),
                mistakes("0 9 * * MONDAY", "UTC"),
                mistakes("0 22-2 * * *", "UTC"),
                mistakes("*/0 * * * *", "UTC"),
                mistakes("0 9,,10 * * *", "UTC"),
                mistakes("0 9 * *", "UTC"),
                mistakes("0 0 9 1 1 * 2027", "UTC"),
                mistakes("", "UTC"),
                mistakes("every day", "UTC"),
                mistakes("@dayly", "UTC"),
                mistakes("@reboot", "UTC"),
                mistakes("@daily", "Berlin"),
                mistakes("@daily", "europe/berlin"),
                mistakes("@daily", "Europe/Berlim"),
                mistakes("@daily", "CEST"),
                mistakes("99 9 * * *", "Nowhere"),
            ]
            .join("\n"),
            @r"
            `25` in field 2 of `0 25 * * *`: number out of bounds; hours are 0 to 23, such as `9`, `9,17`, `9-17` or `*/4`
            `60` in field 1 of `60 9 * 13 *`: number out of bounds; minutes are 0 to 59, such as `0`, `0,30`, `0-10` or `*/15`; `13` in field 4 of `60 9 * 13 *`: number out of bounds; months are 1 to 12 or JAN to DEC, such as `1`, `JAN,JUL` or `*/3`
            `FRI-MON` in field 5 of `0 9 * * FRI-MON`: range out of bounds (a range runs upward: instead of `22-2` write `22-23,0-2`); weekdays are 0 to 7 or SUN to SAT (0 and 7 are both Sunday), such as `MON-FRI`, `SAT,SUN`, `MON#2` for the second Monday or `FRIL` for the last Friday
            `MON` in field 4 of `0 9 * MON *`: `MON` means nothing here; months are 1 to 12 or JAN to DEC, such as `1`, `JAN,JUL` or `*/3`
            `MONDAY` in field 5 of `0 9 * * MONDAY`: `MONDAY` means nothing here; weekdays are 0 to 7 or SUN to SAT (0 and 7 are both Sunday), such as `MON-FRI`, `SAT,SUN`, `MON#2` for the second Monday or `FRIL` for the last Friday
            `22-2` in field 2 of `0 22-2 * * *`: range out of bounds (a range runs upward: instead of `22-2` write `22-23,0-2`); hours are 0 to 23, such as `9`, `9,17`, `9-17` or `*/4`
            `*/0` in field 1 of `*/0 * * * *`: step cannot be zero; minutes are 0 to 59, such as `0`, `0,30`, `0-10` or `*/15`
            `9,,10` in field 2 of `0 9,,10 * * *`: an element of the list is empty; hours are 0 to 23, such as `9`, `9,17`, `9-17` or `*/4`
            `0 9 * *` has 4 fields, not 5 or 6: [seconds] minutes hours days-of-the-month months weekdays, such as `0 9 * * MON-FRI`
            `0 0 9 1 1 * 2027` has 7 fields, not 5 or 6: [seconds] minutes hours days-of-the-month months weekdays, such as `0 9 * * MON-FRI`
            `` has 0 fields, not 5 or 6: [seconds] minutes hours days-of-the-month months weekdays, such as `0 9 * * MON-FRI`
            `every day` has 2 fields, not 5 or 6: [seconds] minutes hours days-of-the-month months weekdays, such as `0 9 * * MON-FRI`
            `@dayly` is not a schedule; did you mean `@daily`?
            `@reboot` is not a schedule; known are @yearly, @annually, @monthly, @weekly, @daily, @hourly
            `Berlin` is not a time zone; did you mean `Europe/Berlin`?
            `europe/berlin` is not a time zone; did you mean `Europe/Berlin`?
            `Europe/Berlim` is not a time zone; did you mean `Europe/Berlin`?
            `CEST` is not a time zone; did you mean `CET`?
            `99` in field 1 of `99 9 * * *`: number out of bounds; minutes are 0 to 59, such as `0`, `0,30`, `0-10` or `*/15`; `Nowhere` is not a time zone; write an IANA name such as `UTC` or `Europe/Berlin`
            "
        );
    }

    #[test]
    fn a_star_in_the_time_of_day_follows_elapsed_time() {
        for (expression, expected) in [
            ("0 * * * *", true),
            ("*/15 * * * *", true),
            ("*/5 2 * * *", true),
            ("* 0 2 * * *", true),
            ("@hourly", true),
            ("30 2 * * *", false),
            ("0 9-17 * * *", false),
            ("0 30 2 * * *", false),
            ("@daily", false),
        ] {
            assert_eq!(follows_elapsed_time(expression), expected, "{expression}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_texts_are_read_or_refused_without_panic(expression: String, zone: String) {
            if let Err(error) = read(&expression, &zone) {
                proptest::prop_assert!(!error.mistakes.is_empty());
            }
        }

        #[test]
        fn any_cron_like_text_is_read_or_refused_without_panic(
            expression in "[0-9*/,#LWMONFRI?+@-]{1,6}( [0-9*/,#LWMONFRI?+-]{1,6}){4,5}",
        ) {
            if let Err(error) = read(&expression, "UTC") {
                proptest::prop_assert!(!error.mistakes.is_empty());
            }
        }
    }
}
