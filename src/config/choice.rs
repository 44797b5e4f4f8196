//! A value that is one of a few words: `text` or `json`, `info` or `debug`.

use super::refusal::Refusal;
use crate::domain::diagnostic::closest;

/// What `text` stands for among `choices`.
pub fn parse<T: Copy>(text: &str, choices: &[(&str, T)]) -> Result<T, Refusal> {
    choices
        .iter()
        .find_map(|(word, value)| (*word == text).then_some(*value))
        .ok_or_else(|| {
            let words: Vec<_> = choices.iter().map(|(word, _)| *word).collect();
            let list: Vec<_> = words.iter().map(|word| format!("\"{word}\"")).collect();
            let refusal = Refusal::new(format!("`{text}` is none of {}", list.join(", ")));
            match closest(text, words) {
                Some(word) => refusal.help(format!("did you mean \"{word}\"?")),
                None => refusal,
            }
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_one_of_those_listed() {
        let choices = [("text", 1), ("json", 2)];
        for (text, expected) in [
            ("text", Ok(1)),
            ("json", Ok(2)),
            (
                "jsno",
                Err("`jsno` is none of \"text\", \"json\"; did you mean \"json\"?"),
            ),
            ("JSON", Err("`JSON` is none of \"text\", \"json\"")),
            ("", Err("`` is none of \"text\", \"json\"")),
        ] {
            assert_eq!(
                parse(text, &choices).map_err(|refusal| refusal.to_string()),
                expected.map_err(str::to_owned)
            );
        }
    }
}
