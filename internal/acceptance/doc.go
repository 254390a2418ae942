// Package acceptance is the proof that what a new user is promised is true:
// the built binary, its commands, real sockets, curl, openssl, nginx and
// PostgreSQL, and nothing from inside the house. It holds tests alone.
package acceptance
