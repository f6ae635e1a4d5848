package pid1

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"os"
	"slices"
	"strings"
	"testing"

	"gprovision/model/fault"
	"gprovision/model/policy"
	"gprovision/model/signature"
	"gprovision/unit/decide"
	"gprovision/unit/machine"
	"gprovision/unit/panel"
	"gprovision/unit/panel/script"
	"gprovision/unit/state"
)

// TestDefects: what is wrong with a unit that starts is told with its code on log and panels, and to the running system; a healthy one
// has nothing to tell.
func TestDefects(t *testing.T) {
	part := &machine.Found{Path: "/dev/vda2"}
	for name, c := range map[string]struct {
		f    Found
		want []string // codes
		say  string   // in the log
	}{
		"healthy":          {Found{Facts: decide.Facts{Recovery: decide.RecoveryFound}}, nil, ""},
		"recovery newer":   {Found{Facts: decide.Facts{Recovery: decide.RecoveryNewer}, Notes: []string{"recovery: version 2"}}, []string{"G216"}, "recovery: version 2"},
		"recovery damaged": {Found{Facts: decide.Facts{Recovery: decide.RecoveryDamaged}, Notes: []string{"main: x", "recovery: superblock"}}, []string{"G213"}, "recovery: superblock"},
		"recovery missing": {Found{Facts: decide.Facts{Recovery: decide.RecoveryMissing}}, []string{"G211"}, "starts without it"},
		"errors are left":  {Found{Facts: decide.Facts{Recovery: decide.RecoveryFound, RecoveryErrors: true, RecoveryRepairs: 2}, RecoveryPart: part}, []string{"G214"}, "repaired 2 times"},
		"bad request":      {Found{Facts: decide.Facts{Recovery: decide.RecoveryFound}, badRequest: errors.New("no JSON")}, []string{"G215"}, "no JSON"},
		"original revoked": {Found{Facts: decide.Facts{Recovery: decide.RecoveryFound}, badOriginal: errors.New("by key 17")}, []string{"G206"}, "by key 17"},
		"degraded":         {Found{Facts: decide.Facts{Recovery: decide.RecoveryFound}, degraded: true, members: []string{"sdb"}}, []string{"G225"}, "sdb"},
		"much at once":     {Found{Facts: decide.Facts{Recovery: decide.RecoveryMissing}, degraded: true}, []string{"G211", "G225"}, "lacks a disk"},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			u := testUnit(t, &out)
			keys := &script.Panel{Answer: func(panel.Asked) []panel.Key { return nil }}
			u.m.Panel.Add("script", keys)
			ctx, cancel := context.WithCancel(t.Context())
			cancel() // nobody reads: nothing is waited for
			texts := u.tellDefects(ctx, defects(&c.f))
			if !slices.EqualFunc(texts, c.want, strings.HasPrefix) || texts == nil {
				t.Errorf("told %q, want %q", texts, c.want)
			}
			if _, err := (state.Boot{Defects: texts}).Marshal(); err != nil {
				t.Error(err)
			}
			for _, code := range c.want {
				if !strings.Contains(out.String(), "code="+code) {
					t.Errorf("%s is not logged:\n%s", code, out.String())
				}
			}
			if err := u.m.Panel.Flush(t.Context()); err != nil {
				t.Error(err)
			}
			shown := "" // only the last view is certain to be seen by a panel that is slow
			for _, v := range keys.Views() {
				if v.Problem != nil {
					shown = v.Problem.Code
				}
			}
			if name == "original revoked" {
				if shown != "" {
					t.Errorf("the panel shows %q, and a customer cannot do anything about it", shown)
				}
			} else if len(c.want) > 0 && shown != c.want[len(c.want)-1] {
				t.Errorf("the panel shows %q", shown)
			}
			if !strings.Contains(out.String(), c.say) || (out.Len() > 0) != (len(c.want) > 0) {
				t.Errorf("the log says:\n%s", out.String())
			}
		})
	}
}

// TestDamagedRequest: it leads to no restore, is reported at one boot, and is kept aside.
func TestDamagedRequest(t *testing.T) {
	for name, text := range map[string]string{"cut off": `{"version":1,"id":"0123`, "another kind": `{"version":1,"id":"0123456789abcdef","kind":"erase"}`, "empty": ""} {
		t.Run(name, func(t *testing.T) {
			ownMounts(t)
			u := testUnit(t, &bytes.Buffer{})
			dev, part := recoveryDisk(t, u)
			if err := u.mountVolume(part, false); err != nil {
				t.Fatal(err)
			}
			err := os.WriteFile(state.Open(u.m.Places.Recovery).Path(state.RequestFile), []byte(text), 0o600)
			if err := errors.Join(err, u.m.Unmount(u.m.Places.Recovery)); err != nil {
				t.Fatal(err)
			}
			u.m.Sys = virtio(t, dev)
			f := &Found{Facts: decide.Facts{Recovery: decide.RecoveryMissing, Main: decide.MainMarked}}
			u.lookForRecovery(f)
			if f.badRequest == nil || fault.Of(&defects(f)[0].Occurrence) != fault.RequestDamaged {
				t.Fatalf("nothing is reported; notes %q", f.Notes)
			}
			if d := decide.Decide(f.Facts, policy.Policy{}); d.Job != decide.Boot {
				t.Errorf("%s, want a normal boot", d)
			}
			u.setRequestAside(f, false)
			if b, err := os.ReadFile(f.Volume.Path(state.BadRequestFile)); err != nil || string(b) != text {
				t.Errorf("kept is %q, %v", b, err)
			}
			u.forget(f)
			again := &Found{Facts: decide.Facts{Recovery: decide.RecoveryMissing}}
			u.lookForRecovery(again)
			u.forget(again)
			if again.Recovery != decide.RecoveryFound || again.badRequest != nil || len(defects(again)) > 0 {
				t.Errorf("the next boot finds it again: %q", again.Notes)
			}
		})
	}
}

// TestRevokedOriginal: init notices that the policy does not let the original image be restored any more, by its signature alone.
func TestRevokedOriginal(t *testing.T) {
	u := testUnit(t, &bytes.Buffer{})
	old, now := testKey(t), testKey(t)
	v := state.Open(t.TempDir())
	const name = "WIDGET.LNX.SHINY.2026-11-22.0001"
	file := v.Path(state.ImageDir, name+".upd")
	f := &Found{Volume: v, Unit: state.Unit{Original: name + ".upd"}}
	judge := func(keys ...signature.PublicKey) error {
		u.m.Keys = keys
		return u.judgeOriginal(f)
	}
	if err := judge(now.Public()); err != nil {
		t.Errorf("there is no such image: %v", err)
	}
	header := append([]byte("\xfd7zXZ\x00\x00\x0a"), make([]byte, 64)...) // of a stream with SHA-256
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
	u.m.Policy.OldestBuild = "2026-12-01.0001"
	if err := judge(old.Public()); fault.Of(err) != fault.Policy {
		t.Errorf("it is too old for the policy: %v", err)
	}
}

func testKey(t *testing.T) signature.PrivateKey {
	t.Helper()
	k, err := signature.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}
