package survey

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"os"
	"testing"

	"gprovision/model/fault"
	"gprovision/model/signature"
	"gprovision/unit/image/imagetest"
	"gprovision/unit/keytest"
	"gprovision/unit/machine"
	"gprovision/unit/state"
)

// TestRevokedOriginal: the signature alone shows a survey that the policy no longer allows the original image.
func TestRevokedOriginal(t *testing.T) {
	m := &machine.Machine{}
	s := &Survey{Eyes: machine.EyesOf(m)}
	old, now := keytest.New(t), keytest.New(t)
	v := state.Open(t.TempDir())
	const name = "WIDGET.LNX.SHINY.2026-11-22.0001"
	file := v.Path(state.ImageDir, name+".upd")
	judge := func(keys ...signature.PublicKey) error {
		m.Keys = keys
		return recoveryLook{s, &Findings{}}.judgeOriginal(v, name+".upd", imagetest.Prefix)
	}
	if err := judge(now.Public()); err != nil {
		t.Errorf("there is no such image: %v", err)
	}
	header := append([]byte("\xfd7zXZ\x00\x00\x0a"), make([]byte, 64)...) // header of a stream with SHA-256
	binary.LittleEndian.PutUint32(header[8:], crc32.ChecksumIEEE(header[6:8]))
	if err := errors.Join(os.MkdirAll(v.Path(state.ImageDir), 0o700), os.WriteFile(file, header, 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := judge(now.Public()); fault.Of(err) != fault.ImageUnsigned {
		t.Errorf("without a signature: %v", err)
	}
	sig, err := old.Sign(bytes.NewReader(header), signature.ImageComment(name))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file+signature.Suffix, sig, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := judge(old.Public(), now.Public()); err != nil {
		t.Errorf("both keys are trusted: %v", err)
	}
	if err := judge(now.Public()); fault.Of(err) != fault.ImageSignature {
		t.Errorf("its key is not in the policy: %v", err)
	}
	m.Policy.OldestBuild = "2026-12-01.0001"
	if err := judge(old.Public()); fault.Of(err) != fault.Policy {
		t.Errorf("it is too old for the policy: %v", err)
	}
}
