// Package signer signs by a program of the user's, so that a private key can stay in an HSM, a smart card or a signing service.
//
// The program is started twice for each signature. It gets the message on standard input, 64 bytes or little more, and writes
// its Ed25519 signature to standard output: 64 bytes, or the same in base64. The environment has GPROV_KEY_ID, the sixteen
// digits of the key, and GPROV_SIGN_PART, "file" or "comment". What it answers is verified with the public key before it is
// used. The contract is described in docs/formats/release-image.md, "External signers". No shell is started.
package signer

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"

	"gprovision/forge/tool"
	"gprovision/model/signature"
)

// ErrAnswer says that the program wrote something else than a signature.
var ErrAnswer = errors.New("want 64 bytes of signature, or the same in base64")

// Program returns a signer that runs a program, with its arguments, for the key. The program ends when ctx ends.
func Program(ctx context.Context, log *slog.Logger, program []string, key signature.PublicKey) (signature.External, error) {
	if len(program) == 0 || program[0] == "" {
		return signature.External{}, errors.New("external signer: no program is named")
	}
	return signature.NewExternal(key, func(part signature.Part, message []byte) ([]byte, error) {
		out, err := tool.Output(ctx, log, tool.Command{
			Name: program[0], Args: program[1:], Quiet: true, Stdin: bytes.NewReader(message),
			Env: []string{"GPROV_KEY_ID=" + key.ID(), "GPROV_SIGN_PART=" + string(part)},
		})
		if err != nil {
			return nil, fmt.Errorf("external signer: %w", err)
		}
		sig, err := parse(out)
		if err != nil {
			return nil, fmt.Errorf("external signer %s: %d bytes: %w", program[0], len(out), err)
		}
		return sig, nil
	})
}

// parse reads a program's answer. The two forms differ in length, so neither is taken for the other.
func parse(out []byte) ([]byte, error) {
	if len(out) == ed25519.SignatureSize {
		return out, nil
	}
	sig, err := base64.StdEncoding.DecodeString(string(bytes.TrimSpace(out)))
	if err != nil || len(sig) != ed25519.SignatureSize {
		return nil, ErrAnswer
	}
	return sig, nil
}
