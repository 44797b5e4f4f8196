//! `bursar scripts list | edited`

use serde_json::{Value, json};

use super::admin_client::Daemon;
use super::exit_code::Outcome;
use super::listed::Shown;
use super::output::{complain, field, list, print, print_json, short, table};
use super::settings::Settings;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// List the scripts in use, and the mistakes in the folder if it holds others
    List {
        #[command(flatten)]
        shown: Shown,
    },
    /// Note that you edited a script last, in the version in use
    ///
    /// You are whoever the token belongs to: say --as NAME for another one than `admin`. A policy
    /// may forbid the last editor of a script to approve its payments; as long as nobody has noted
    /// who that is, nobody can approve them.
    Edited {
        /// The script, without `.rhai`
        name: String,
        #[command(flatten)]
        shown: Shown,
    },
}

pub(super) fn run(settings: &Settings, command: Command) -> Outcome {
    let shown = match command {
        Command::List { shown } => shown,
        Command::Edited { name, shown } => return edited(settings, &name, &shown),
    };
    let scripts = Daemon::of(settings)?.get("scripts")?;
    if shown.json {
        print_json(&scripts);
        return Ok(());
    }
    print(&rows_table(list(&scripts, "scripts")));
    let mistakes = list(&scripts, "errors");
    if !mistakes.is_empty() {
        complain("\nThe scripts in the folder have mistakes; the ones above go on.\n");
        for mistake in mistakes {
            complain(&field(mistake, "text"));
        }
    }
    Ok(())
}

fn edited(settings: &Settings, name: &str, shown: &Shown) -> Outcome {
    let answer = Daemon::of(settings)?.post("edited", &json!({"script": name}))?;
    shown.show(&answer, |answer| {
        format!(
            "{} is noted as the last editor of `{}`, version {}",
            field(answer, "by"),
            field(answer, "script"),
            field(answer, "version")
        )
    });
    Ok(())
}

fn rows_table(scripts: &[Value]) -> String {
    let mut cells = Vec::new();
    for script in scripts {
        let handlers = list(script, "handlers");
        let row = |handler: &Value| {
            vec![
                field(script, "file"),
                field(handler, "name"),
                field(handler, "on"),
                short(&field(script, "about")),
            ]
        };
        if handlers.is_empty() {
            cells.push(row(&Value::Null));
        }
        cells.extend(handlers.iter().map(row));
    }
    table(&["FILE", "HANDLER", "ON", "ABOUT"], &cells)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_has_one_line_for_each_handler() {
        let scripts = [
            json!({"file": "lib/x.rhai", "about": "", "handlers": []}),
            json!({"file": "pay.rhai", "about": "Pays.\nMore.", "handlers": [
                {"name": "daily", "on": "0 9 * * *", "line": 1},
                {"name": "withdrawal.*", "on": "withdrawal.*", "line": 2},
            ]}),
        ];
        insta::assert_snapshot!(rows_table(&scripts));
    }
}
