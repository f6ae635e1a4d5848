package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"gprovision/cli/shown"
	"gprovision/hw/durable"
	"gprovision/model/erasure"
	"gprovision/model/ledger"
	"gprovision/model/qrtext"
	"gprovision/model/record"
	"gprovision/model/signature"
)

// EraseSubmitCmd brings a certificate to the server.
type EraseSubmitCmd struct {
	VaultSource
	Accept bool   `help:"Accept an outcome that is weaker than proved: it ends the unit's life as a proved one does."`
	File   string `arg:"" help:"Certificate. FILE.minisig lies beside it."`
}

// Help returns what --help prints below the usage.
func (*EraseSubmitCmd) Help() string {
	return `For a certificate that came by a stick, because the unit had no server. The server must know the unit's key. What it says to it is
written to FILE.voucher and FILE.tlog-proof, and gprov erase verify finds that. The same file may be brought again. If the erase is proved,
the server ends this life of the unit: its key is revoked, and it can be provisioned again.

Examples:
  gprov erase submit WX-0001.json --server https://10.7.0.1:8443 --ca ca.pem --password-file admin.txt
  gprov erase submit WX-0001.json --data /srv/factory`
}

// Run sends the files and writes the answer beside them.
func (e *EraseSubmitCmd) Run(c *Context) error {
	q := record.EraseSubmission{Accepted: e.Accept}
	for _, f := range []struct {
		name  string
		max   int
		must  bool
		value *[]byte
	}{
		{e.File, erasure.MaxCertificate, true, &q.Certificate},
		{e.File + signature.Suffix, signature.MaxSize, true, &q.Signature},
		{e.File + erasure.ProofSuffix, ledger.MaxProof, false, &q.Proof},
	} {
		var err error
		if *f.value, err = readUpTo(f.name, f.max); err != nil && (f.must || !errors.Is(err, fs.ErrNotExist)) {
			return fmt.Errorf("read certificate: %w", err)
		}
	}
	d, err := e.open(c)
	if err != nil {
		return err
	}
	defer d.Close()
	reply, err := d.submit(c, q)
	if err != nil {
		return fmt.Errorf("%s: %w", e.File, err)
	}
	for _, f := range []struct {
		suffix  string
		content []byte
	}{{erasure.VoucherSuffix, reply.Voucher}, {erasure.ProofSuffix, reply.Proof}} {
		if err := durable.Write(e.File+f.suffix, f.content, 0o644); err != nil {
			return fmt.Errorf("write what the server says: %w", err)
		}
		fmt.Fprintln(c.Stdout, e.File+f.suffix)
	}
	if reply.Ended {
		fmt.Fprintf(c.Stderr, "note: this erase has ended the life of unit %s: its key is revoked, and it can be provisioned again\n",
			shown.Line(reply.Unit))
	}
	return nil
}

// EraseCodesCmd draws a certificate as QR codes.
type EraseCodesCmd struct {
	Columns int    `default:"80" help:"Columns of the screen."`
	Lines   int    `default:"50" help:"Lines of the screen. Fewer make more codes."`
	File    string `arg:"" help:"Certificate. FILE.minisig lies beside it."`
}

// Help returns what --help prints below the usage.
func (*EraseCodesCmd) Help() string {
	return `Light modules are drawn, for dark screens. gprov erase paste makes the files again of the texts of all codes.

Example:
  gprov erase codes WX-0001.json`
}

// Run prints the codes, each below its number.
func (e *EraseCodesCmd) Run(c *Context) error {
	file, err := readUpTo(e.File, erasure.MaxCertificate)
	if err != nil {
		return fmt.Errorf("read certificate: %w", err)
	}
	sig, err := readUpTo(e.File+signature.Suffix, signature.MaxSize)
	if err != nil {
		return fmt.Errorf("read certificate: %w", err)
	}
	if _, err := erasure.ParseSigned(file, sig); err != nil {
		return fmt.Errorf("%s: %w", e.File, err)
	}
	codes, err := erasure.Codes(file, sig, qrtext.Room(e.Columns, e.Lines-1))
	if err != nil {
		return &HintError{err, "use a larger screen, and say with --columns and --lines how large it is"}
	}
	for i, text := range codes {
		lines, err := qrtext.Draw(text)
		if err != nil {
			return err
		}
		fmt.Fprintf(c.Stdout, "%d of %d\n%s\n", i+1, len(codes), strings.Join(lines, "\n"))
	}
	return nil
}

// ErasePasteCmd reads the texts of QR codes.
type ErasePasteCmd struct {
	Out   string `required:"" placeholder:"FILE" help:"File to write, with FILE.minisig. Neither may exist."`
	Texts string `arg:"" help:"File with the texts of the codes, in any order; /dev/stdin for what you paste."`
}

// Help returns what --help prints below the usage.
func (*ErasePasteCmd) Help() string {
	return `Where a unit can show its certificate as QR codes and nothing else, scan them and keep their texts in a file, each as one line. The
certificate can be checked then, and brought to the server.

Example:
  gprov erase paste scanned.txt --out WX-0001.json`
}

// Run writes the two files.
func (e *ErasePasteCmd) Run(c *Context) error {
	text, err := readUpTo(e.Texts, 2*erasure.MaxCertificate)
	if err != nil {
		return fmt.Errorf("read codes: %w", err)
	}
	file, sig, err := erasure.ParseCodes(string(text))
	if err != nil {
		return &HintError{fmt.Errorf("read codes: %w", err), "the file must have the texts of all codes of one certificate, and nothing else"}
	}
	if _, err := erasure.ParseSigned(file, sig); err != nil {
		return fmt.Errorf("the codes are whole: %w", err)
	}
	for _, f := range []struct {
		name    string
		content []byte
	}{{e.Out, file}, {e.Out + signature.Suffix, sig}} {
		if _, err := os.Lstat(f.name); err == nil {
			return fmt.Errorf("write certificate: %s: %w", f.name, fs.ErrExist)
		}
		if err := durable.Write(f.name, f.content, 0o644); err != nil {
			return fmt.Errorf("write certificate: %w", err)
		}
		fmt.Fprintln(c.Stdout, f.name)
	}
	return nil
}

// EraseAnswerCmd has a unit go on after an erase that is not proved.
type EraseAnswerCmd struct{ SupportAnswer }

// Help returns what --help prints below the usage.
func (*EraseAnswerCmd) Help() string {
	return `A unit whose erase has failed, or of which nobody knows, does nothing else until it is erased again, or support answers what it
shows after "Resolve erase" in its menu. It restores itself then; data may be left on its disks, and the certificate goes on saying so.
Look at the certificate first: gprov erase verify prints the digest that stands in the challenge. The answer holds for this one erase of
this one unit, once. It is typed there; case, blanks and dashes do not matter.

Examples:
  gprov erase verify WX-0001.json --key server.vkey
  gprov erase answer --key support.key WX-0001/erase/6Q2M-9ZJ4-T0XK-8VBH/7KQ2-M4B9-D3ZT-PAXX`
}

// Run prints the answer.
func (e *EraseAnswerCmd) Run(c *Context) error { return e.print(c, true) }

// EraseKeysCmd prints a server's keys.
type EraseKeysCmd struct {
	VaultSource
	Which string `arg:"" enum:"units,log" help:"Which keys (${enum}): those of --key, or those of --log-key of gprov erase verify."`
}

// Help returns what --help prints below the usage.
func (*EraseKeysCmd) Help() string {
	return `One key a line, the present one first. They belong to whoever checks certificates: get them once, over a way that you trust.

Examples:
  gprov erase keys units --data /srv/factory > server.vkey
  gprov erase keys log --server https://10.7.0.1:8443 --ca ca.pem --password-file admin.txt > log.vkey`
}

// Run prints the keys.
func (e *EraseKeysCmd) Run(c *Context) error {
	d, err := e.open(c)
	if err != nil {
		return err
	}
	defer d.Close()
	k, err := d.noteKeys(c)
	if err != nil {
		return err
	}
	lines := k.Units
	if e.Which == "log" {
		lines = k.Log
	}
	for i, l := range lines {
		lines[i] = shown.Line(l)
	}
	_, err = fmt.Fprintln(c.Stdout, strings.Join(lines, "\n"))
	return err
}
