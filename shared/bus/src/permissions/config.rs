//! The table as part of a configuration file of nats-server.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::{Action, Installation, Role, Rule, rules};

/// Longest line of subjects, in characters.
const LINE: usize = 112;

/// Why no configuration can be printed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Two users would have the same password.
    #[error(
        "the worker types {0} and {1} have the same variable for the password, {2}: rename one of them"
    )]
    SameVariable(String, String, String),
}

/// The block `authorization { … }` with one user per role, and everything refused that is not in the
/// table.
///
/// nats-server takes the passwords from the environment. It does not start when a variable is
/// missing. An empty one would be a user without a password, so each variable is also named as a
/// subject that its user may not publish on: an empty subject is an error.
///
/// # Errors
/// [`ConfigError`].
pub fn authorization(installation: &Installation) -> Result<String, ConfigError> {
    check_variables(installation)?;

    let mut text = "authorization {\n  users = [\n".to_owned();
    for role in installation.roles() {
        text += &user(installation, &role);
    }
    text += "  ]\n}\n";
    Ok(text)
}

fn check_variables(installation: &Installation) -> Result<(), ConfigError> {
    let mut variables = BTreeMap::new();
    for role in installation.roles() {
        let variable = role.password_variable();
        if let Some(other) = variables.insert(variable.clone(), role.user()) {
            return Err(ConfigError::SameVariable(other, role.user(), variable));
        }
    }
    Ok(())
}

/// The subjects in quotes, several in a line when they are short.
fn lines(rules: &[&Rule]) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for rule in rules {
        let subject = format!("\"{}\"", rule.subject);
        match lines.last_mut() {
            Some(line) if line.len() + subject.len() < LINE => {
                line.push_str(", ");
                line.push_str(&subject);
            }
            _ => lines.push(subject),
        }
    }
    lines
}

fn user(installation: &Installation, role: &Role) -> String {
    let (user, variable) = (role.user(), role.password_variable());
    let rules = rules(installation, role);

    let mut text =
        format!("    {{\n      user: \"{user}\", password: ${variable}\n      permissions: {{\n");
    for action in [Action::Publish, Action::Subscribe] {
        let _ = writeln!(text, "        {action}: {{\n          allow: [");
        let of_action: Vec<&Rule> = rules.iter().filter(|rule| rule.action == action).collect();
        for same_reason in of_action.chunk_by(|a, b| a.why == b.why) {
            let _ = writeln!(text, "            # {}", same_reason[0].why);
            for line in lines(same_reason) {
                let _ = writeln!(text, "            {line}");
            }
        }
        text += "          ]\n";
        if action == Action::Publish {
            // See the comment of `authorization`.
            let _ = writeln!(text, "          deny: [${variable}]");
        }
        text += "        }\n";
    }
    if matches!(role, Role::Worker(_)) {
        text += "        # Answers to requests: the NATS service of each worker.\n";
        text += "        allow_responses: { max: 1, expires: \"1m\" }\n";
    }
    text += "      }\n    }\n";
    text
}
