package decide

import (
	"strings"
	"testing"
)

func TestParseArgs(t *testing.T) {
	a := ParseArgs(`provision.pxe console=ttyS0 mfgurl=http://10.0.0.1/m.json enrol=abc BOOTIF=01-52-54-00-AA-BB-CC "real_root=PARTUUID=ABCD-01" x="a b"`, false)
	if a.ManifestURL != "http://10.0.0.1/m.json" || a.Token.Reveal() != "abc" || a.BootMAC != "52:54:00:aa:bb:cc" || a.Root != (Root{ByPARTUUID, "ABCD-01"}) || a.Erase {
		t.Errorf("got %+v", a)
	}
	if l := ParseArgs("mfgurl=http://x enrol=t DATA_ERASE=1 KERNEL_OVERRIDE=recovery FACTORY_RESTORE=1 PREFERRED_UPDATE=oldest PROTO_IDENT=x real_root=PARTUUID=a", true); l != (Args{Root: Root{ByPARTUUID, "a"}}) {
		t.Errorf("a locked artifact takes %+v from the command line", l)
	}
	if s := WithoutSecrets("mfgurl=http://me:topsecret@host/m.json?a=b"); s != "mfgurl=http://host/m.json?a=b" {
		t.Errorf("got %q", s)
	}
	if s := WithoutSecrets("a enrol=topsecret b"); strings.Contains(s, "topsecret") || !strings.Contains(s, "a enrol=[secret] b") {
		t.Errorf("got %q", s)
	}
}

// TestWords: the separators between words, and quotes within them.
func TestWords(t *testing.T) {
	a := ParseArgs("mfgurl=\"http://a b\"\tBOOTIF=52-54-00-AA-BB-CC\nreal_root=PARTUUID=  PROTO_IDENT=x\n", false)
	if a.ManifestURL != "http://a b" || a.BootMAC != "52:54:00:aa:bb:cc" || a.Root != (Root{}) || a.ProtoIdent != "x" {
		t.Errorf("got %+v", a)
	}
	if a := ParseArgs("PROVISION_MFG_TEST=Stop-After-Validate", false); a.MfgTest != StopAfterValidate {
		t.Errorf("a test of %q", a.MfgTest)
	}
	if a := ParseArgs("BOOTIF=20-52-54-00-AA-BB-CC", false); a.BootMAC != "20:52:54:00:aa:bb:cc" {
		t.Errorf("hardware of another type: %q", a.BootMAC)
	}
	if a := ParseArgs("BOOTIF=01-52-54-00-AA-BB", false); a.BootMAC != "01:52:54:00:aa:bb" {
		t.Errorf("no type, and a vendor that begins like one: %q", a.BootMAC)
	}
	if l := ParseArgs("real_root=LABEL=x PROVISION_MFG_TEST=x", true); l != (Args{}) {
		t.Errorf("a locked artifact takes %+v from the command line", l)
	}
	if s := WithoutSecrets("a  x=http://%zz b"); s != "a x=http://%zz b" {
		t.Errorf("got %q", s)
	}
}

func FuzzParseArgs(f *testing.F) {
	f.Add(`a=b "c d" real_root=PARTUUID=x`)
	f.Fuzz(func(t *testing.T, s string) {
		ParseArgs(s, false)
		WithoutSecrets(s)
	})
}
