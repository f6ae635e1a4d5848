package cli

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"filippo.io/age"

	"gprovision/cli/answer"
	"gprovision/cli/shown"
	"gprovision/factory"
	"gprovision/factory/api"
	"gprovision/factory/login"
	"gprovision/factory/notary"
	"gprovision/factory/store"
	"gprovision/factory/vault"
	"gprovision/model/record"
	"gprovision/model/secret"
)

// VaultCmd holds the verbs about the credentials of units.
type VaultCmd struct {
	Keygen VaultKeygenCmd `cmd:"" help:"Make an operator's key pair."`
	Read   VaultReadCmd   `cmd:"" help:"Read the credentials of one unit. The reading is recorded."`
	List   VaultListCmd   `cmd:"" help:"List the generations of a unit's credentials and who read them."`
}

// VaultKeygenCmd makes an operator's key pair.
type VaultKeygenCmd struct {
	Out string `required:"" placeholder:"NAME" help:"Write NAME.key (private, keep it away from the server) and NAME.pub."`
}

// Help returns what --help prints below the usage.
func (*VaultKeygenCmd) Help() string {
	return `The private key opens all credentials that the server makes from now on: keep it with the operator, never on the server. The
public half is given to gprov serve.

Example:
  gprov vault keygen --out operator
  gprov serve --data /srv/factory --interface eth1 --operator-key operator.pub`
}

// Run writes the two files. Existing ones are never overwritten.
func (v *VaultKeygenCmd) Run(c *Context) error {
	private, public, err := vault.NewKey()
	if err != nil {
		return err
	}
	if err := writeKeyFile(v.Out+".key", []byte(private.Reveal()), 0o600); err != nil {
		return err
	}
	if err := writeKeyFile(v.Out+".pub", []byte(public+"\n"), 0o644); err != nil {
		return err
	}
	fmt.Fprintln(c.Stdout, public)
	return nil
}

func writeKeyFile(path string, b []byte, mode os.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return fmt.Errorf("write key: %w", err)
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Sync(), f.Close())
}

// VaultSource says where the server is, or its data.
type VaultSource struct {
	Server       string `placeholder:"URL" help:"Address of the server, such as https://10.7.0.1:8443." xor:"source"`
	Data         string `placeholder:"DIR" help:"Data directory of the server, on the server itself." xor:"source"`
	CA           string `name:"ca" placeholder:"FILE" help:"The server's CA (its ca.pem). Default: the CAs of this system."`
	Operator     string `default:"admin" help:"Operator to log in as."`
	PasswordFile string `placeholder:"FILE" help:"File with the operator's password. Default: the environment variable GPROV_PASSWORD."`
}

// open returns a door to the vault.
func (s *VaultSource) open(c *Context) (door, error) {
	switch {
	case s.Data != "":
		path := filepath.Join(s.Data, factory.StoreFile)
		if _, err := os.Stat(path); err != nil {
			return nil, fmt.Errorf("open vault: %w", err)
		}
		db, err := store.Open(c, path)
		if err != nil {
			return nil, err
		}
		return &localDoor{db, s.Operator}, nil
	case s.Server != "":
		return s.remote()
	}
	return nil, &UsageError{errors.New("give --server URL or --data DIR")}
}

// door is what the server keeps, as operators' verbs see it, on the server or on the same machine.
type door interface {
	read(ctx context.Context, unit string, generation uint64) (store.Secret, error)
	detail(ctx context.Context, unit string) (vaultList, error)
	submit(ctx context.Context, s record.EraseSubmission) (record.EraseReply, error)
	noteKeys(ctx context.Context) (record.NoteKeys, error)
	Close() error
}

type localDoor struct {
	db       *store.DB
	operator string
}

func (d *localDoor) Close() error { return d.db.Close() }

func (d *localDoor) read(ctx context.Context, unit string, generation uint64) (store.Secret, error) {
	return d.db.ReadSecret(ctx, unit, generation, d.operator, "data directory")
}

func (d *localDoor) detail(ctx context.Context, unit string) (vaultList, error) {
	if _, err := d.db.Unit(ctx, unit); err != nil {
		return vaultList{}, err
	}
	var l vaultList
	var err1, err2 error
	l.Secrets, err1 = d.db.Secrets(ctx, unit)
	l.Readings, err2 = d.db.Readings(ctx, unit)
	return l, errors.Join(err1, err2)
}

func (d *localDoor) submit(ctx context.Context, s record.EraseSubmission) (record.EraseReply, error) {
	e, err := notary.New(d.db, nil).Submit(ctx, s, notary.Sender{Operator: d.operator})
	return api.EraseReply(e), err
}

func (d *localDoor) noteKeys(ctx context.Context) (record.NoteKeys, error) {
	return notary.New(d.db, nil).Keys(ctx)
}

// vaultList is what gprov vault list prints.
type vaultList struct {
	Secrets  []store.Secret  `json:"credentials"`
	Readings []store.Reading `json:"readings"`
}

type remoteDoor struct {
	base     string
	operator string
	password secret.Secret
	client   *http.Client
}

func (s *VaultSource) remote() (*remoteDoor, error) {
	base, err := record.Endpoint(s.Server)
	if err != nil {
		return nil, &UsageError{fmt.Errorf("--server: %w", err)}
	}
	d := &remoteDoor{base: base, operator: s.Operator, password: secret.Secret(os.Getenv("GPROV_PASSWORD"))}
	if s.PasswordFile != "" {
		if d.password, err = login.ReadPassword(s.PasswordFile); err != nil {
			return nil, err
		}
	}
	if d.password.Empty() {
		return nil, &UsageError{errors.New("give the operator's password with --password-file or GPROV_PASSWORD")}
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if s.CA != "" {
		b, err := os.ReadFile(s.CA)
		if err != nil {
			return nil, fmt.Errorf("read CA: %w", err)
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(b) {
			return nil, fmt.Errorf("read CA: %s holds no certificate in PEM", s.CA)
		}
	}
	protocols := &http.Protocols{}
	protocols.SetHTTP1(true)
	d.client = &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{Protocols: protocols, TLSClientConfig: conf},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return d, nil
}

func (d *remoteDoor) Close() error { d.client.CloseIdleConnections(); return nil }

func (d *remoteDoor) ask(ctx context.Context, method, path string, body []byte, into any) error {
	r, err := http.NewRequestWithContext(ctx, method, d.base+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.SetBasicAuth(d.operator, d.password.Reveal())
	resp, err := d.client.Do(r)
	var untrusted *tls.CertificateVerificationError
	if errors.As(err, &untrusted) {
		return &HintError{err, "name the server's CA with --ca FILE (ca.pem in its data directory)"}
	}
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, record.MaxBody))
	if err != nil {
		return err
	}
	if resp.StatusCode == http.StatusNotFound {
		return store.ErrNotFound
	}
	if resp.StatusCode != http.StatusOK {
		var p record.Problem
		if json.Unmarshal(b, &p) != nil || p.Error == "" {
			p.Error = resp.Status
		}
		return fmt.Errorf("the server says: %s", p.Error)
	}
	if err := json.Unmarshal(b, into); err != nil {
		return fmt.Errorf("answer of the server: %w", err)
	}
	return nil
}

func (d *remoteDoor) read(ctx context.Context, unit string, generation uint64) (store.Secret, error) {
	body, err := json.Marshal(api.ReadRequest{Generation: generation})
	if err != nil {
		return store.Secret{}, err
	}
	var s store.Secret
	err = d.ask(ctx, "POST", "/v1/units/"+url.PathEscape(unit)+"/credentials/read", body, &s)
	return s, err
}

func (d *remoteDoor) detail(ctx context.Context, unit string) (vaultList, error) {
	var l vaultList
	err := d.ask(ctx, "GET", "/v1/units/"+url.PathEscape(unit), nil, &l)
	return l, err
}

func (d *remoteDoor) submit(ctx context.Context, s record.EraseSubmission) (record.EraseReply, error) {
	body, err := json.Marshal(s)
	if err != nil {
		return record.EraseReply{}, err
	}
	var r record.EraseReply
	err = d.ask(ctx, "POST", "/v1/erases/submit", body, &r)
	return r, err
}

func (d *remoteDoor) noteKeys(ctx context.Context) (record.NoteKeys, error) {
	var k record.NoteKeys
	err := d.ask(ctx, "GET", "/v1/erases/keys", nil, &k)
	return k, err
}

func noSuchUnit(unit string, err error) error {
	if errors.Is(err, store.ErrNotFound) {
		return fmt.Errorf("the server has no credentials of a unit %q", unit)
	}
	return err
}

// VaultReadCmd reads the credentials of one unit.
type VaultReadCmd struct {
	VaultSource
	Identity   string `required:"" placeholder:"FILE" help:"The operator's private key (NAME.key)."`
	Generation uint64 `help:"Which generation. Default: the newest that the unit has confirmed, else the newest."`
	JSON       bool   `name:"json" help:"Print JSON."`
	Unit       string `arg:"" help:"Name of the unit."`
}

// Help returns what --help prints below the usage.
func (*VaultReadCmd) Help() string {
	return `The server gives out what is encrypted and records who asked; it is opened here, with the operator's private key.

Examples:
  gprov vault read VM0001 --identity operator.key --server https://10.7.0.1:8443 --ca ca.pem --password-file admin.txt
  gprov vault read VM0001 --identity operator.key --data /srv/factory`
}

// Run fetches the ciphertext, decrypts it here, and prints the passwords.
func (v *VaultReadCmd) Run(c *Context) error {
	b, err := os.ReadFile(v.Identity)
	if err != nil {
		return fmt.Errorf("read private key: %w", err)
	}
	ids, err := age.ParseIdentities(bytes.NewReader(b))
	if err != nil {
		return fmt.Errorf("read private key %s: not a file of age identities", v.Identity)
	}
	d, err := v.open(c)
	if err != nil {
		return err
	}
	defer d.Close()
	s, err := d.read(c, v.Unit, v.Generation)
	if err != nil {
		return noSuchUnit(v.Unit, err)
	}
	cr, err := vault.Open(ids, v.Unit, s.Generation, s.Ciphertext)
	var wrong *age.NoIdentityMatchError
	if errors.As(err, &wrong) {
		return &HintError{err, "they were encrypted to other operators: use the private key of one that the server had when it made them"}
	}
	if err != nil {
		return err
	}
	if !s.Active {
		fmt.Fprintf(c.Stderr, "note: they were given to the key %s, which does not speak for the unit now\n", s.Fingerprint)
	}
	if s.Confirmed.IsZero() {
		fmt.Fprintf(c.Stderr, "note: the unit has not confirmed that it has set these\n")
	}
	if v.JSON {
		wire, err := cr.Wire()
		if err != nil {
			return err
		}
		return answer.JSON(c.Stdout, json.RawMessage(wire))
	}
	fmt.Fprintf(c.Stdout, "os    %s\nbios  %s\nipmi  %s\n", cr.OS.Reveal(), cr.BIOS.Reveal(), cr.IPMI.Reveal())
	return nil
}

// VaultListCmd lists what the vault has of a unit.
type VaultListCmd struct {
	VaultSource
	JSON bool   `name:"json" help:"Print JSON."`
	Unit string `arg:"" help:"Name of the unit."`
}

// Help returns what --help prints below the usage.
func (*VaultListCmd) Help() string {
	return `Shows no passwords, and needs no private key.

Examples:
  gprov vault list VM0001 --data /srv/factory
  gprov vault list VM0001 --server https://10.7.0.1:8443 --ca ca.pem --password-file admin.txt --json`
}

// Run prints the generations and the readings.
func (v *VaultListCmd) Run(c *Context) error {
	d, err := v.open(c)
	if err != nil {
		return err
	}
	defer d.Close()
	l, err := d.detail(c, v.Unit)
	if err != nil {
		return noSuchUnit(v.Unit, err)
	}
	if v.JSON {
		return answer.JSON(c.Stdout, l)
	}
	when := func(t time.Time) string {
		if t.IsZero() {
			return "never"
		}
		return t.Format(time.RFC3339)
	}
	for _, s := range l.Secrets {
		what := ""
		switch {
		case s.Lost:
			what = ", lost: only the unit has them"
		case s.Void:
			what = ", set nowhere"
		case !s.Active:
			what = ", replaced"
		}
		fmt.Fprintf(c.Stdout, "generation %d  made %s  confirmed %s  key %s%s\n", s.Generation, when(s.Created), when(s.Confirmed), s.Fingerprint, what)
		for _, r := range l.Readings {
			if r.Generation == s.Generation {
				fmt.Fprintln(c.Stdout, strings.TrimRight(fmt.Sprintf("  read %s by %s from %s", when(r.Time), shown.Line(r.Operator), shown.Line(r.Remote)), " "))
			}
		}
	}
	return nil
}
