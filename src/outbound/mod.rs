//! What scripts may reach outside: HTTP to allowed origins, files below the data folder.
