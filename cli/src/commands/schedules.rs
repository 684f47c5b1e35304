//! Operations that start by the clock.

use ktrdr_client::{
    CatchUp, Client, LastError, Overlap, PutSchedule, ScheduleDocument, ScheduleId,
};
use serde_json::{Map, Value, json};

use super::start;
use crate::args::{PutArgs, SchedulesCommand};
use crate::failure::Failure;
use crate::parameters;
use crate::text::{
    ago, print, print_json, print_json_line, print_table, shortened, until, with_fields, word,
};

/// What a backend says about a schedule beside what was put.
const READ_ONLY: [&str; 11] = [
    "schedule_id",
    "operation_type",
    "next_runs",
    "last_run",
    "last_error",
    "skipped",
    "missed",
    "waiting_slots",
    "created_at",
    "updated_at",
    "created_by",
];

/// Lists schedules, or does something with some.
///
/// # Errors
/// [`Failure`]: the first that is refused. What came before it is done.
pub async fn run(
    client: &Client,
    command: Option<SchedulesCommand>,
    json: bool,
) -> Result<(), Failure> {
    match command.unwrap_or(SchedulesCommand::List) {
        SchedulesCommand::List => list(client, json).await,
        SchedulesCommand::Show { id } => show(&client.schedule(&id).await?, json),
        SchedulesCommand::Put(put) => {
            let schedule = schedule(&put)?;
            show(&client.put_schedule(&put.id, &schedule).await?, json)
        }
        SchedulesCommand::Pause { ids } => {
            for id in &ids {
                changed(&client.pause_schedule(id).await?, json)?;
            }
            Ok(())
        }
        SchedulesCommand::Resume { ids } => {
            for id in &ids {
                changed(&client.resume_schedule(id).await?, json)?;
            }
            Ok(())
        }
        SchedulesCommand::Run { id, wait } => start(client, &id, wait, json).await,
        SchedulesCommand::Delete { ids } => {
            for id in &ids {
                client.delete_schedule(id).await?;
                match json {
                    true => print_json_line(&json!({"success": true, "schedule_id": id}))?,
                    false => print(&format!("{id}: deleted"))?,
                }
            }
            Ok(())
        }
    }
}

async fn list(client: &Client, json: bool) -> Result<(), Failure> {
    let schedules = client.schedules().await?;
    if json {
        return print_json(&schedules);
    }

    let rows = schedules
        .iter()
        .map(|schedule| {
            let last = schedule.last_run.as_ref();
            vec![
                schedule.schedule_id.to_string(),
                schedule.domain.clone(),
                schedule.cron.clone(),
                schedule.time_zone.clone(),
                next(schedule),
                last.map(|run| ago(run.at)).unwrap_or_default(),
                schedule.newest_error().map(error_text).unwrap_or_default(),
            ]
        })
        .collect();
    print_table(
        &["ID", "DOMAIN", "CRON", "ZONE", "NEXT", "LAST", "ERROR"],
        rows,
    )
}

fn next(schedule: &ScheduleDocument) -> String {
    match schedule.next_runs.first() {
        _ if schedule.paused => "paused".to_owned(),
        Some(time) => until(*time),
        None => "never".to_owned(),
    }
}

fn error_text(error: &LastError) -> String {
    format!("{}: {}", error.code, error.message)
}

fn show(schedule: &ScheduleDocument, json: bool) -> Result<(), Failure> {
    if json {
        return print_json(schedule);
    }

    let heading = format!(
        "{}: {} at {} ({})",
        schedule.schedule_id, schedule.domain, schedule.cron, schedule.time_zone
    );
    let mut fields = Vec::new();
    let mut add = |name: &str, value: String| fields.push((name.to_owned(), value));
    add("parameters", shortened(schedule.body.get(), 200));
    add("overlap", word(schedule.overlap));
    add("catch up", word(schedule.catch_up));
    if schedule.paused {
        add("paused", "starts nothing by itself".to_owned());
    }
    for time in &schedule.next_runs {
        add("next", format!("{time} ({})", until(*time)));
    }
    if let Some(run) = &schedule.last_run {
        add("last", format!("{} ({})", run.operation_id, ago(run.at)));
    }
    if schedule.skipped > 0 {
        add("left out", schedule.skipped.to_string());
    }
    if schedule.missed > 0 {
        add("missed", schedule.missed.to_string());
    }
    if let Some(waiting) = schedule.waiting_slots.filter(|waiting| *waiting > 0) {
        add("waiting", waiting.to_string());
    }
    if let Some(error) = &schedule.last_error {
        add(
            "error",
            format!("slot {}: {}", error.slot, error_text(error)),
        );
    }
    print(&with_fields(heading, &fields))
}

fn changed(schedule: &ScheduleDocument, json: bool) -> Result<(), Failure> {
    if json {
        return print_json_line(schedule);
    }
    let next = match schedule.paused {
        true => "paused".to_owned(),
        false => format!("next {}", next(schedule)),
    };
    print(&format!("{}: {next}", schedule.schedule_id))
}

async fn start(client: &Client, id: &ScheduleId, wait: bool, json: bool) -> Result<(), Failure> {
    let started = client.run_schedule(id).await?;
    start::show(client, started, wait, json).await
}

/// The schedule: what the file says, and what the command line says instead.
fn schedule(put: &PutArgs) -> Result<PutSchedule, Failure> {
    let mut document = parameters::read(put.file.as_deref(), &[])?;
    document.retain(|name, _| !READ_ONLY.contains(&name.as_str()));

    let given = [
        ("domain", put.domain.clone().map(Value::from)),
        ("cron", put.cron.clone().map(Value::from)),
        ("time_zone", put.time_zone.clone().map(Value::from)),
        (
            "overlap",
            put.overlap.map(|way| word(Overlap::from(way)).into()),
        ),
        (
            "catch_up",
            put.catch_up.map(|way| word(CatchUp::from(way)).into()),
        ),
        ("paused", put.paused.then_some(Value::Bool(true))),
    ];
    for (name, value) in given {
        if let Some(value) = value {
            document.insert(name.to_owned(), value);
        }
    }

    let words = parameters::read(None, &put.parameters)?;
    let body = document
        .entry("body")
        .or_insert_with(|| Value::Object(Map::new()));
    if let Some(body) = body.as_object_mut() {
        body.extend(words);
    }

    for (name, what) in [("domain", "a domain"), ("cron", "--cron")] {
        if !document.contains_key(name) {
            return Err(Failure::Usage(format!("a schedule needs {what}")));
        }
    }
    // From a text: the body is kept as it stands there.
    let text = Value::Object(document).to_string();
    serde_json::from_str(&text).map_err(|error| Failure::Usage(format!("the schedule: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(file: Option<&std::path::Path>, words: &[&str]) -> Result<PutSchedule, Failure> {
        schedule(&PutArgs {
            id: "nightly".parse().unwrap(),
            domain: Some("dummy".to_owned()),
            parameters: words.iter().map(|&word| word.to_owned()).collect(),
            file: file.map(ToOwned::to_owned),
            cron: None,
            time_zone: None,
            overlap: None,
            catch_up: None,
            paused: false,
        })
    }

    #[test]
    fn a_schedule_needs_a_cron_line() {
        let refused = put(None, &["steps=1"]);

        assert!(matches!(refused, Err(Failure::Usage(_))), "{refused:?}");
    }

    #[test]
    fn what_a_backend_shows_can_be_put_again() {
        let path = std::env::temp_dir().join(format!("schedule-{}.json", std::process::id()));
        let shown = r#"{"schedule_id":"old","domain":"other","operation_type":"x","body":{"steps":9,"step_ms":1},
            "cron":"0 0 * * *","time_zone":"UTC","overlap":"queue","catch_up":"skip","paused":true,
            "next_runs":[],"last_run":null,"last_error":null,"skipped":0,
            "created_at":"2025-11-10T10:30:00Z","updated_at":"2025-11-10T10:30:00Z","created_by":null}"#;
        std::fs::write(&path, shown).unwrap();

        let schedule = put(Some(&path), &["steps=1"]);
        std::fs::remove_file(&path).unwrap();

        let schedule = schedule.unwrap();
        assert_eq!(schedule.domain, "dummy");
        assert_eq!(schedule.body.get(), r#"{"steps":1,"step_ms":1}"#);
        assert_eq!(schedule.overlap, Overlap::Queue);
        assert!(schedule.paused);
    }
}
