//! `sqlx::migrate!` embeds the files that were there at compile time: a new one must compile this crate again.

fn main() {
    println!("cargo:rerun-if-changed=migrations");
}
