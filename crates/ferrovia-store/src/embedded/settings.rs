//! The server's configuration, written anew at each start.
//!
//! Small rather than fast: the platform has a few thousand rows and a few writes a second, and an idle server shall
//! cost little memory and wake up seldom. Durability is not traded: `fsync`, `full_page_writes` and
//! `synchronous_commit` stay on.

use std::path::Path;

use super::ROLE;
use super::account::Account;

/// Name of the map from users of the host to roles.
const MAP: &str = "ferrovia";

/// `ferrovia.conf`. Whoever wants something else writes it to `local.conf` beside it.
pub(super) fn configuration(socket_dir: &Path, has_local: bool) -> String {
    let socket_dir = socket_dir.to_string_lossy().replace('\'', "''");
    // Looked at here: the server logs a missing file of `include_if_exists`.
    let local = if has_local { "include = 'local.conf'\n" } else { "" };
    format!(
        "# Written by Ferrovia at each start; your own settings belong into local.conf\n\
         listen_addresses = ''\n\
         unix_socket_directories = '\"{socket_dir}\"'\n\
         unix_socket_permissions = 0700\n\
         cluster_name = 'ferrovia'\n\
         max_connections = 20\n\
         superuser_reserved_connections = 2\n\
         # Memory: what an idle server holds\n\
         shared_buffers = 16MB\n\
         wal_buffers = 256kB\n\
         huge_pages = off\n\
         work_mem = 2MB\n\
         maintenance_work_mem = 16MB\n\
         temp_buffers = 1MB\n\
         max_files_per_process = 200\n\
         jit = off\n\
         # No processes for what is not used\n\
         max_worker_processes = 0\n\
         max_parallel_workers = 0\n\
         max_parallel_workers_per_gather = 0\n\
         max_parallel_maintenance_workers = 0\n\
         max_logical_replication_workers = 0\n\
         max_wal_senders = 0\n\
         wal_level = minimal\n\
         autovacuum_max_workers = 1\n\
         # Little disk, few wake-ups\n\
         max_wal_size = 128MB\n\
         min_wal_size = 32MB\n\
         checkpoint_timeout = 15min\n\
         autovacuum_naptime = 5min\n\
         bgwriter_delay = 10s\n\
         wal_writer_delay = 1s\n\
         # After a crash every file must be on disk before the log is replayed; one call instead of a thousand\n\
         recovery_init_sync_method = syncfs\n\
         temp_file_limit = 512MB\n\
         # The log names no statements: they are the platform's own, and values could be in them\n\
         log_destination = 'stderr'\n\
         logging_collector = off\n\
         log_line_prefix = '%m [%p] '\n\
         log_timezone = 'UTC'\n\
         log_min_messages = warning\n\
         log_min_error_statement = panic\n\
         log_checkpoints = off\n\
         {local}"
    )
}

/// `pg_hba.conf`: the kernel says who asks. Nothing else is let in.
pub(super) fn admission() -> String {
    format!("# Written by Ferrovia at each start\nlocal all all peer map={MAP}\n")
}

/// `pg_ident.conf`: who may be which role.
pub(super) fn roles(account: &Account) -> String {
    let mut text = "# Written by Ferrovia at each start\n".to_owned();
    for peer in account.peers() {
        for role in [ROLE, "postgres"] {
            text.push_str(&format!("{MAP} \"{peer}\" {role}\n"));
        }
    }
    text
}
