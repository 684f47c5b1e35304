//! `ktrdr-bench`: what scripts/bench runs.

fn main() -> std::process::ExitCode {
    ktrdr_tests::bench::main()
}
