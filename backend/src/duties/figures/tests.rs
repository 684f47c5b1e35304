use std::io::Write;
use std::sync::Arc;

use ktrdr_protocol::id::WorkerType;
use parking_lot::Mutex;

use super::*;

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// The lines since the last call.
    fn take(&self) -> Vec<String> {
        let text = String::from_utf8(std::mem::take(&mut *self.0.lock())).unwrap();
        text.lines().map(str::to_owned).collect()
    }
}

impl Write for Log {
    fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
        self.0.lock().write(text)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn work(quietest: Option<(&str, Duration)>) -> UnfinishedWork {
    UnfinishedWork {
        worker_type: WorkerType::new("training").unwrap(),
        oldest: None,
        quietest: quietest.map(|(id, age)| (OperationId::new(id).unwrap(), age)),
    }
}

#[test]
fn an_operation_that_is_quiet_for_an_hour_is_told_once_until_it_reports_again() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let mut warnings = Warnings::default();
    let (early, late) = (QUIET, QUIET + Duration::from_secs(1));

    warnings.about_quiet(&[work(None), work(Some(("a", early)))]);
    assert_eq!(log.take(), Vec::<String>::new());

    warnings.about_quiet(&[work(Some(("a", late)))]);
    let lines = log.take();
    assert!(
        lines.len() == 1
            && ["WARN", "operation_id=a", "silent_for=3601s", "nothing new"]
                .iter()
                .all(|part| lines[0].contains(part)),
        "{lines:?}"
    );

    warnings.about_quiet(&[work(Some(("a", late)))]);
    assert_eq!(log.take(), Vec::<String>::new());

    // It reports, and is quiet again.
    warnings.about_quiet(&[work(Some(("a", early)))]);
    warnings.about_quiet(&[work(Some(("a", late)))]);
    assert_eq!(log.take().len(), 1);
}

#[test]
fn there_are_several_looks_while_an_operation_is_about_to_expire() {
    for seconds in [10, 60, 3_600, 7 * 86_400] {
        let retention = Duration::from_secs(seconds);
        // The streams keep it for a quarter longer.
        let about_to_expire = retention.mul_f64(1.25 * (1.0 - NEARLY_EXPIRED));

        assert!(pause(retention) * 4 <= about_to_expire, "{retention:?}");
    }
}
