//! Live tests of the whole platform. They share the machine's Docker Engine and run one after another
//! (`--test-threads=1`).

mod live_examples;
