package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/term"

	"gprovision/model/secret"
	"gprovision/model/signature"
)

// KeysCmd holds the verbs about signing keys.
type KeysCmd struct {
	New KeysNewCmd `cmd:"" help:"Make a key pair for signing images and manifests."`
}

// KeysNewCmd is "gprov keys new".
type KeysNewCmd struct {
	Out        string `required:"" placeholder:"NAME" help:"Writes NAME.pub and NAME.key. Existing files are never overwritten."`
	Passphrase string `name:"passphrase-file" xor:"pass" placeholder:"FILE" help:"Encrypt the private key; the first line of FILE is the passphrase."`
	Encrypt    bool   `xor:"pass" help:"Encrypt the private key; ask for the passphrase on the terminal."`
	JSON       bool   `help:"Print the result as JSON."`
}

// Help returns what --help prints below the usage.
func (*KeysNewCmd) Help() string {
	return `The files are in the format of minisign. The public key goes into the policy of the boot artifact; the private key stays
with whoever releases, never on the factory server.

Examples:
  gprov keys new --out release
  gprov keys new --out release --encrypt`
}

// Run makes the pair.
func (k *KeysNewCmd) Run(c *Context) error {
	pub, priv := k.Out+".pub", k.Out+".key"
	for _, f := range []string{pub, priv} {
		if _, err := os.Lstat(f); err == nil {
			return &HintError{fmt.Errorf("%s is there already", f), "keys are never overwritten: choose another --out"}
		}
	}
	var pass secret.Secret
	var err error
	switch {
	case k.Passphrase != "":
		pass, err = passphraseFrom(k.Passphrase)
	case k.Encrypt:
		pass, err = askPassphrase(c, "Passphrase for "+priv+": ")
		if err == nil {
			var again secret.Secret
			if again, err = askPassphrase(c, "Again: "); err == nil && !pass.Equal(again) {
				err = errors.New("the two passphrases differ")
			}
		}
	}
	if err != nil {
		return err
	}
	key, err := signature.NewKey()
	if err != nil {
		return err
	}
	text, err := key.Text(pass)
	if err != nil {
		return err
	}
	if err := writeNew(priv, text, 0o600); err != nil {
		return fmt.Errorf("write private key: %w", err)
	}
	if err := writeNew(pub, key.Public().Text(), 0o644); err != nil {
		os.Remove(priv)
		return fmt.Errorf("write public key: %w", err)
	}
	if k.JSON {
		return imageJSON(c, map[string]any{"public": pub, "private": priv, "keyID": key.Public().ID(), "key": key.Public().String(), "encrypted": !pass.Empty()})
	}
	fmt.Fprintf(c.Stdout, "made %s and %s\n", pub, priv)
	imageTable(c.Stdout, [][2]string{{"key", key.Public().ID()}, {"public", key.Public().String()}})
	if pass.Empty() {
		fmt.Fprintf(c.Stderr, "note: %s is not encrypted; keep it where only the release job can read it\n", priv)
	}
	return nil
}

// writeNew writes a file that must not be there yet, and syncs it.
func writeNew(name string, content []byte, mode fs.FileMode) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		os.Remove(name)
	}
	return err
}

// readPrivateKey reads a .key file. An encrypted one needs the file with its passphrase, or a terminal to ask on.
func readPrivateKey(c *Context, file, passphraseFile string) (signature.PrivateKey, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return signature.PrivateKey{}, fmt.Errorf("--key: %w", err)
	}
	var pass secret.Secret
	if signature.Encrypted(string(text)) {
		if passphraseFile != "" {
			pass, err = passphraseFrom(passphraseFile)
		} else {
			pass, err = askPassphrase(c, "Passphrase for "+file+": ")
		}
		if err != nil {
			return signature.PrivateKey{}, err
		}
	}
	key, err := signature.ParsePrivateKey(string(text), pass)
	if err != nil {
		hint := "want a private key: the .key file that 'gprov keys new' makes"
		if errors.Is(err, signature.ErrPassphrase) {
			hint = "check the passphrase"
		} else if _, e := signature.ParsePublicKey(string(text)); e == nil {
			hint = "this is a public key; the private one ends in .key"
		}
		return signature.PrivateKey{}, &HintError{fmt.Errorf("--key %s: %w", file, err), hint}
	}
	return key, nil
}

// passphraseFrom reads the first line of a file.
func passphraseFrom(file string) (secret.Secret, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("--passphrase-file: %w", err)
	}
	line, _, _ := strings.Cut(string(b), "\n")
	line = strings.TrimSuffix(line, "\r")
	if line == "" {
		return "", fmt.Errorf("--passphrase-file %s: its first line is empty", file)
	}
	return secret.Secret(line), nil
}

// askPassphrase asks on the terminal, without showing what is typed.
func askPassphrase(c *Context, prompt string) (secret.Secret, error) {
	in := int(os.Stdin.Fd())
	if !term.IsTerminal(in) {
		return "", &HintError{errors.New("a passphrase is needed, and standard input is not a terminal"), "give it with --passphrase-file FILE"}
	}
	fmt.Fprint(c.Stderr, prompt)
	b, err := term.ReadPassword(in)
	fmt.Fprintln(c.Stderr)
	if err != nil {
		return "", fmt.Errorf("read passphrase: %w", err)
	}
	if len(b) == 0 {
		return "", errors.New("the passphrase is empty")
	}
	return secret.Secret(b), nil
}
