package lab

import (
	"strings"
	"testing"
)

func TestDeb822Stanzas(t *testing.T) {
	const text = `Types: deb
# a comment
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /k.gpg

Types: deb
URIs: https://vendor.example/node
Suites: nodistro

Enabled: no
Types: deb
Suites: bookworm

Types: deb
Suites: bookworm-backports
`
	got := deb822Stanzas(text)
	want := "Types: deb\nURIs: http://mirror.example/debian\nSuites: bookworm bookworm-updates\nComponents: main\nSigned-By: /k.gpg\n\n"
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestListLines(t *testing.T) {
	const text = `# deb http://a bookworm main
deb http://a bookworm main contrib
deb-src http://a bookworm main
deb [arch=amd64 signed-by=/k.gpg] http://a bookworm-security main
deb https://vendor.example/apt cloud-sdk-bookworm main
deb http://a trixie main
`
	got := strings.Split(strings.TrimSpace(listLines(text)), "\n")
	if len(got) != 2 || !strings.Contains(got[0], "contrib") || !strings.Contains(got[1], "bookworm-security") {
		t.Errorf("got %q", got)
	}
}

func TestFetchOptions(t *testing.T) {
	const dump = `Acquire "";
Acquire::http "";
Acquire::http::Proxy "http://127.0.0.1:3142/";
Acquire::Check-Valid-Until "false";
Acquire::IndexTargets::deb::Packages::MetaKey "$(COMPONENT)/binary-$(ARCHITECTURE)/Packages";
DPkg::Post-Invoke:: "rm -rf /";
`
	got := strings.Join(fetchOptions([]byte(dump)), "|")
	if want := `Acquire::Check-Valid-Until "false"|Acquire::http::Proxy "http://127.0.0.1:3142/"`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestQuoteForShell(t *testing.T) {
	if got, want := quote("it's"), `'it'\''s'`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
