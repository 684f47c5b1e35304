//! A short run of `scripts/chaos`.

use std::time::Duration;

use ktrdr_tests::chaos::{Options, run};

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_done_twice_whatever_dies() {
    let seed = fastrand::u64(..1_000_000);
    let options = Options {
        schedules: true,
        patience: Duration::from_secs(60),
        ..Options::new(Duration::from_secs(15), seed)
    };
    let report = run(&options).await;

    // Shown when the test fails. The same seed gives the same faults again.
    println!("{report}");

    assert!(
        report.is_clean(),
        "see the violations above; again with: scripts/chaos --seconds 15 --schedules --seed {seed}"
    );

    // Which fault comes is up to the seed, and so is whether attempts are lost or handed back.
    let totals = &report.verdict.totals;
    assert!(
        totals.takeovers + totals.releases > 0,
        "the faults had no effect"
    );
}
