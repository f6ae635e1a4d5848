package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"gprovision/factory"
	"gprovision/factory/api"
	"gprovision/factory/store"
	"gprovision/hw/durable"
)

// ServeCmds holds the server and what is done to its data.
type ServeCmds struct {
	Server  ServeCmd        `cmd:"" name:"run" default:"withargs" help:"Run the factory server. This is what gprov serve does."`
	Backup  ServeBackupCmd  `cmd:"" help:"Copy the database of a server, which may be running, to a file."`
	Restore ServeRestoreCmd `cmd:"" help:"Use a backup of the database from now on."`
}

// Help is shown by gprov serve --help.
func (ServeCmds) Help() string {
	return `Examples:
  gprov serve --data /srv/factory --init
  gprov serve --data /srv/factory --interface eth1 --operator-key operator.pub
  gprov serve run --help            all that the server can be told`
}

// ServeBackupCmd copies the database.
type ServeBackupCmd struct {
	Data string `required:"" placeholder:"DIR" help:"Directory of everything the server keeps."`
	Out  string `required:"" placeholder:"FILE" help:"File to write. It must not exist."`
}

// Help returns what --help prints below the usage.
func (*ServeBackupCmd) Help() string {
	return `The copy is as the database was at one moment. It holds ciphertexts of credentials, hashes of passwords and all records. What else is in
DIR belongs into a backup as well, above all ca.pem and ca.key: without them no unit finds its server again.

Example:
  gprov serve backup --data /srv/factory --out /backup/gprov-2026-11-22.db`
}

// Run writes the copy.
func (v *ServeBackupCmd) Run(c *Context) error {
	db, err := openStore(c, v.Data)
	if err != nil {
		return err
	}
	defer db.Close()
	if err := db.Backup(c, v.Out); err != nil {
		return err
	}
	if err := durable.Sync(v.Out); err != nil {
		return err
	}
	fmt.Fprintln(c.Stdout, v.Out)
	return nil
}

// openStore opens the database of a data directory, which must be there.
func openStore(c *Context, data string) (*store.DB, error) {
	path := filepath.Join(data, factory.StoreFile)
	if _, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	return store.Open(c, path)
}

// ServeRestoreCmd puts a backup of the database into its place.
type ServeRestoreCmd struct {
	Data string `required:"" placeholder:"DIR" help:"Directory of everything the server keeps."`
	From string `required:"" placeholder:"FILE" help:"What gprov serve backup has written."`
}

// Help returns what --help prints below the usage.
func (*ServeRestoreCmd) Help() string {
	return `The server must not be running. The database that was used so far stays beside the new one, under another name.

Units may know more than a backup: which credentials are set, and that they are complete. From now on they tell it, with their own keys.
A key that the backup does not have waits for an operator, who compares its fingerprint with the unit's panel. Credentials that a unit
has confirmed are not made anew: those that were made after the backup are lost, and a unit that is released gets new ones.

Example:
  gprov serve restore --data /srv/factory --from /backup/gprov-2026-11-22.db`
}

// Run checks the backup, and puts a copy of it into the place of the database.
func (v *ServeRestoreCmd) Run(c *Context) error {
	if _, err := api.OpenAuthority(v.Data); err != nil {
		return &HintError{err, "put ca.pem and ca.key of the server there first: units trust no other one"}
	}
	lock, err := factory.Lock(v.Data)
	if err != nil {
		return serverError(err)
	}
	defer lock.Close()
	place := filepath.Join(v.Data, factory.StoreFile)
	next := place + ".new"
	if err := v.prepare(c, next); err != nil {
		return errors.Join(err, removeStore(next))
	}
	aside := place + ".before-" + time.Now().UTC().Format("20060102-150405")
	if err := setAside(c, place, aside); err != nil {
		return errors.Join(err, removeStore(next))
	}
	if err := os.Rename(next, place); err != nil {
		return err
	}
	if err := durable.Sync(v.Data); err != nil {
		return err
	}
	fmt.Fprintln(c.Stdout, place)
	if _, err := os.Stat(aside); err == nil {
		fmt.Fprintf(c.Stderr, "note: the database that was used so far is %s\n", aside)
	}
	return nil
}

// prepare makes a copy of the backup that begins an epoch, and is whole.
func (v *ServeRestoreCmd) prepare(c *Context, next string) error {
	if _, err := os.Stat(v.From); err != nil {
		return fmt.Errorf("open backup: %w", err)
	}
	if err := removeStore(next); err != nil { // of a try that was cut off
		return err
	}
	if err := copyFile(v.From, next); err != nil {
		return err
	}
	db, err := store.Open(c, next)
	if err != nil {
		return &HintError{fmt.Errorf("%s is no backup of a server: %w", v.From, err), "give what gprov serve backup has written"}
	}
	err = db.Check(c)
	if err == nil {
		err = db.BeginEpoch(c)
	}
	return errors.Join(err, db.Close())
}

// setAside keeps what the database held so far, and leaves nothing beside its place that SQLite would merge into the next one. A
// database that cannot be read is moved as it is.
func setAside(c *Context, place, aside string) error {
	if _, err := os.Stat(place); errors.Is(err, os.ErrNotExist) {
		return removeStore(place)
	}
	db, err := store.Open(c, place)
	if err == nil {
		err = errors.Join(db.Backup(c, aside), db.Close())
	}
	if err == nil {
		err = durable.Sync(aside)
	}
	if _, left := os.Stat(place + "-wal"); err == nil && errors.Is(left, os.ErrNotExist) {
		return nil // closing has merged everything into the one file, which is replaced
	}
	if err := removeStore(aside); err != nil {
		return err
	}
	for _, s := range storeSuffixes() {
		if err := os.Rename(place+s, aside+s); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// storeSuffixes are the names of a database's files, behind its own: SQLite keeps what is not merged yet beside it.
func storeSuffixes() []string { return []string{"-wal", "-shm", ""} }

func removeStore(path string) error {
	for _, s := range storeSuffixes() {
		if err := os.Remove(path + s); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// copyFile copies a file to one that does not exist, which only its owner can read, and waits until it is on the disk.
func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Sync(), out.Close())
}
