package policy

import (
	"reflect"
	"strings"
	"testing"
)

func TestRoundTrip(t *testing.T) {
	p := Policy{Version: 1, Provision: true, Keys: []string{"RWabc"}, BootArgs: "console=ttyS0", OldestBuild: "2026-01-01.1"}
	b, err := p.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	got, err := Parse(b)
	if err != nil || !reflect.DeepEqual(got, p) {
		t.Fatalf("got %+v, %v", got, err)
	}
}

func TestParseRefuses(t *testing.T) {
	for name, tc := range map[string]struct{ in, want string }{
		"empty":       {``, "EOF"},
		"no version":  {`{"keys":["x"]}`, "version 0"},
		"newer":       {`{"version":99,"keys":["x"]}`, "version 99"},
		"trusts none": {`{"version":1}`, "no keys"},
		"trailing":    {`{"version":1,"keys":["x"]} {}`, "after the end"},
		"bad args":    {`{"version":1,"keys":["x"],"bootArgs":"a\nb"}`, "bootArgs"},
		"bad ca":      {`{"version":1,"keys":["x"],"serverCA":"nonsense"}`, "serverCA"},
		"forced":      {`{"version":1,"keys":["x"],"forcedRestore":"yes"}`, "forcedRestore"},
		"always":      {`{"version":1,"keys":["x"],"bootArgs":"quiet FACTORY_RESTORE=1"}`, "every boot"},
		"panels":      {`{"version":1,"keys":["x"],"panels":["mouse"]}`, "mouse"},
		"oldest":      {`{"version":1,"keys":["x"],"oldestBuild":"2026-13-01.1"}`, "oldestBuild"},
		"grace":       {`{"version":1,"keys":["x"],"graceSeconds":-1}`, "graceSeconds"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := Parse([]byte(tc.in)); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("got %v, want an error with %q", err, tc.want)
			}
		})
	}
}

func TestUnknownKeysAreIgnored(t *testing.T) {
	if _, err := Parse([]byte(`{"version":1,"keys":["x"],"_comment":"hi","future":{"a":1}}`)); err != nil {
		t.Fatal(err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"version":1,"keys":["x"]}`))
	f.Add([]byte(`{"version":1,"allowUnsigned":true,"bootArgs":"console=ttyS0 quiet","serverCA":"-----BEGIN CERTIFICATE-----"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := Parse(b)
		if err != nil {
			return
		}
		out, err := p.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Parse(out); err != nil {
			t.Fatalf("own output is refused: %v", err)
		}
	})
}
