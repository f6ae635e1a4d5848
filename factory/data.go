package factory

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"filippo.io/age"

	"gprovision/factory/api"
	"gprovision/factory/login"
	"gprovision/factory/store"
	"gprovision/factory/vault"
)

// Names in the data directory, besides the CA's files.
const (
	// FilesDir is the directory of files that units may fetch.
	FilesDir = "files"
	// StoreFile is the database.
	StoreFile = "gprov.db"
	// OperatorsFile holds the operators' public keys.
	OperatorsFile = "operators.txt"

	lockFile = "lock"
)

// data is an open data directory.
type data struct {
	lock  *os.File
	ca    *api.Authority
	store *store.DB
	login *login.Service
}

// Init sets up whatever is missing in the data directory: its folders, the CA, the database and the operator admin.
func Init(ctx context.Context, c Config) error {
	d, err := openData(ctx, c)
	if err != nil {
		return err
	}
	d.close()
	return nil
}

// openData opens the data directory and sets up whatever is missing. After an error nothing stays open.
func openData(ctx context.Context, c Config) (_ *data, err error) {
	if err := os.MkdirAll(c.files(), 0o755); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	d := &data{}
	defer func() {
		if err != nil {
			d.close()
		}
	}()
	if d.lock, err = Lock(c.Data); err != nil {
		return nil, err
	}
	if d.ca, err = api.OpenAuthority(c.Data); err != nil {
		return nil, err
	}
	if d.store, err = store.Open(ctx, filepath.Join(c.Data, StoreFile)); err != nil {
		return nil, err
	}
	if d.login, err = login.New(d.store, login.Cost); err != nil {
		return nil, err
	}
	return d, d.admin(ctx, c)
}

func (d *data) close() {
	if d.store != nil {
		d.store.Close()
	}
	if d.lock != nil {
		d.lock.Close()
	}
}

// Lock locks a data directory until the returned file is closed. The error is ErrInUse if another program has locked it.
func Lock(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock data directory: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, kind{fmt.Errorf("another server uses %s", dir), ErrInUse}
	}
	return f, nil
}

// admin sets the password of the first operator.
func (d *data) admin(ctx context.Context, c Config) error {
	if c.AdminPasswordFile != "" {
		p, err := login.ReadPassword(c.AdminPasswordFile)
		if err != nil {
			return err
		}
		if d.login.Check(ctx, login.Admin, p, "") == nil {
			return nil // unchanged: sessions stay
		}
		if err := d.login.SetPassword(ctx, login.Admin, p); err != nil {
			return fmt.Errorf("password of %s from %s: %w", login.Admin, c.AdminPasswordFile, err)
		}
		return nil
	}
	n, err := d.store.Logins(ctx)
	if err != nil || n > 0 {
		return err
	}
	if c.FirstPassword == nil {
		return kind{errors.New("there is no operator yet: give a file with a password"), ErrConfig}
	}
	p, err := vault.Password(16, "")
	if err != nil {
		return err
	}
	if err := c.FirstPassword(p); err != nil { // first, since a password that nobody knows is useless
		return err
	}
	return d.login.SetPassword(ctx, login.Admin, p)
}

// files returns the directory of files that units may fetch.
func (c Config) files() string { return filepath.Join(c.Data, FilesDir) }

// recipients collects the operators' public keys.
func (c Config) recipients() ([]age.Recipient, error) {
	var out []age.Recipient
	add := func(name, text string) error {
		r, err := vault.ParseRecipients(text)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		out = append(out, r...)
		return nil
	}
	for _, k := range c.OperatorKeys {
		if strings.HasPrefix(k, "age1") || strings.HasPrefix(k, "AGE-SECRET-KEY-") {
			if err := add("--operator-key", k); err != nil {
				return nil, err
			}
			continue
		}
		b, err := os.ReadFile(k)
		if err != nil {
			return nil, fmt.Errorf("--operator-key: %w", err)
		}
		if err := add(k, string(b)); err != nil {
			return nil, err
		}
	}
	path := filepath.Join(c.Data, OperatorsFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return out, nil
	}
	if err != nil {
		return nil, err
	}
	return out, add(path, string(b))
}
