package support

import (
	"encoding/json"
	"strings"
	"testing"
)

// TestClean has passwords in every form in which they get into logs, configuration and command lines. SECRET is the secret, and nothing of
// it stays.
func TestClean(t *testing.T) {
	c := newCleaner(nil)
	for _, text := range []string{
		// Addresses.
		`proxy=http://joe:SECRET@proxy.example:3128/`, `HTTPS://joe:SECRET@x/`, `smb://DOM;joe:SECRET@srv/share`, `url "ftp://:SECRET@x"`, `https://SECRET@github.example/x.git`,
		`GET /v1?token=SECRET&x=1`, `https://x/?a=1&password=SECRET`, `redis://:SE/CRET@x:1`, `postgres://u:SECRET@db/x?sslmode=off`,
		// JSON, also inside of JSON.
		`{"password":"SECRET"}`, `{"password": "a SECRET b"}`, `{"password":"a\"SECRET"}`, `{"adminPassword" : "SECRET", "x": 1}`, `{"msg":"set {\"password\":\"a SECRET b\"}"}`,
		`{"tokens":["SECRET","SECRET"]}`, `{"api_key":"SECRET"}`, `{"apiKey":"SECRET"}`, `{"clientSecret":"SECRET"}`, `{"secret":{"a":"SECRET"}}`, `{"cmd":["tool","--password","SECRET"]}`,
		`{"msg":"set {\"password\":\"a\\\"SECRET\"}"}`, `{"msg":"{\"msg\":\"{\\\"pin\\\":\\\"\\\\\\\"SECRET\\\"}\"}"}`,
		`{"tokens":["a]SECRET"]}`, `{"password":"token=SECRET"}`,
		`{"password":"eyJhbGciOi.SECRETSECRET.SECRETSECRET SECRET"}`, `tokens=["SECRET`, `password="SECRET`, "password=\"a\\\nSECRET\"",
		// YAML.
		"password: SECRET\n", "wifi:\n  password: a SECRET b\n", "password: 'a SECRET'", `password: "a SECRET"`, "password: |\n  SECRET\n  SECRET\nuser: x\n", "- password: >-\n    SECRET\n\n    SECRET\n", "  db_pass: SECRET SECRET\n", "access-points:\n  \"net\": {password: SECRET}\n", "password: |SECRET", "password: >SECRET b", "password: -SECRET",
		// ini and the like.
		"password = a SECRET b", "Password=SECRET", "wpa_passphrase=SECRET", "\tpsk=\"a SECRET b\"", "\tpsk=SECRET", "sae_password=SECRET", "wep_key0=SECRET", "PrivateKey=SECRET=", "PresharedKey = SECRET=",
		"[WireGuard]\nPrivateKey=SECRET\n", "Server=x;User=y;Pwd=SECRET;Db=z", "$cfg['password'] = 'SECRET';", "'password' => 'a SECRET b',", "pin=SECRET", "snmp community: SECRET", "rocommunity SECRET default\n", "com2sec me 10.0.0.0/8 SECRET\n",
		// Hashes.
		"root:$6$SECRETsalt$SECRETSECRET:19000:0:99999:7:::", "admin:$y$j9T$SECRETSECRET$SECRETSECRET:19000::::::", "old:SECRETSECRET:19000:0:99999:7:::", "x:$apr1$SECRETaa$SECRETSECRET", "u:{SSHA}SECRETSECRET=", "joe:1001:aad3b435b51404eeaad3b435b51404ee:31d6cfe0d16ae931b73c59d7e0c089c0:::", "u:{SHA512-CRYPT}$6$SECRETaa$SECRETSECRET",
		// Requests.
		"Authorization: Bearer SECRET", "Authorization: Basic SECRET==", "authorization: Digest username=\"x\", response=\"SECRET\"", "Proxy-Authorization: SECRET", "AUTHORIZATION: SECRET", "Cookie: a=SECRET; b=SECRET", "Set-Cookie: session=SECRET; Path=/",
		"> X-Auth-Token: SECRET", "X-Api-Key: SECRET", `{"headers":{"Authorization":["Token SECRET"],"Cookie":["a=SECRET; b=SECRET"]}}`, `header "Authorization: Token SECRET"`, `map[Authorization:[Token SECRET]]`,
		// Command lines.
		"tool --password SECRET --verbose", "tool --password=SECRET", "tool --password 'a SECRET b' x", `tool --token "a SECRET"`, "tool -password SECRET", "tool --admin-pass SECRET", `["tool" "--password" "SECRET"]`, `argv=["tool", "--secret", "SECRET"]`,
		"curl -u joe:SECRET https://x", "curl --user joe:SECRET x", "wget --user=joe --password=SECRET", "sshpass -p SECRET ssh x", "ipmitool -H x -U admin -P SECRET chassis", "ipmitool user set password 2 SECRET 20", "mysql -u root -pSECRET db", "openssl rsa -passin pass:SECRET",
		"export DB_PASSWORD='a SECRET b'", "export TOKEN=SECRET", "PGPASSWORD=SECRET psql", "Environment=API_TOKEN=SECRET", "aws_secret_access_key=SECRET", `env="DB_PASSWORD=SECRET"`,
		// netrc, keys, tokens, XML.
		"machine h login joe password SECRET", "machine h\n  login joe\n  password SECRET\n", "default login x password SECRET", "-----BEGIN OPENSSH PRIVATE KEY-----\nSECRET\nSECRET\n-----END OPENSSH PRIVATE KEY-----", "-----BEGIN PGP PRIVATE KEY BLOCK-----\nSECRET\n-----END PGP PRIVATE KEY BLOCK-----",
		"-----BEGIN EC PRIVATE KEY-----\nSECRET", `"key":"-----BEGIN RSA PRIVATE KEY-----\nSECRET\n-----END RSA PRIVATE KEY-----\n"`, "AGE-SECRET-KEY-1SECRETSECRET", "RWRTYEIySECRETSECRETSECRETSECRETSECRET",
		"private key: SECRET", "eyJhbGciOi.SECRETSECRET.SECRETSECRET", "ghp_SECRETSECRETSECRET", "AKIASECRETSECRET00", "<password>SECRET</password>", "<adminPassword type=\"x\">SECRET</adminPassword>", `<user name="x" password="SECRET"/>`,
		`time=1 level=INFO msg=x password=SECRET next=1`, `level=INFO msg="password is SECRETLESS" token="a SECRET"`, "password:\tSECRET", "passphrase := SECRET", "enrol=SECRET mfgurl=x",
	} {
		got := c.text(text)
		if strings.Contains(strings.ReplaceAll(got, "SECRETLESS", ""), "SECRET") && !strings.HasPrefix(text, "AGE-") || strings.Contains(got, "KEY-1SECRET") {
			t.Errorf("%q\nbecomes %q", text, got)
		}
		if strings.Contains(got, "31d6cfe0d16ae931b73c59d7e0c089c0") {
			t.Errorf("%q\nbecomes %q", text, got)
		}
		if json.Valid([]byte(text)) && !json.Valid([]byte(got)) {
			t.Errorf("%q\nis no JSON any more: %q", text, got)
		}
		if again := c.text(got); again != got {
			t.Errorf("%q\nbecomes %q the second time", got, again)
		}
	}
	// What support needs stays.
	for _, text := range []string{
		"G113: the manifest is not signed", `{"time":"2026-11-22T10:00:00Z","level":"INFO","msg":"image checked","image":"WIDGET.LNX.SHINY.2026-11-22.0001.upd","bytes":123456}`,
		"key RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3", "the administrator's password is set", "wrong password", "a password was asked for 3 times",
		"root:x:0:0:root:/root:/bin/bash", "root:*:19000:0:99999:7:::", "daemon:!:19000:0:99999:7:::", "sha256:4f53cda18c2baa0c0354bb5f9a3ecbe5ed12ab4d8e11ba873c2f11161202b945", "MACAddress=00:11:22:33:44:55", "mount -t ext4 -o ro /dev/sda1 /mnt",
		"--no-pager --lines=5000", "passed 3 of 3", "compass=north", "bypass: yes", "spin=3", "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----", "https://10.0.0.1:8443/v1/units", "user@host.example", "eth0: flags=4163 mtu 1500", "real_root=PARTUUID=1234-02 quiet",
	} {
		if got := c.text(text); got != text {
			t.Errorf("%q\nbecomes %q", text, got)
		}
	}
}

// TestCleanUpTo: where a value ends that is not quoted. What stands behind it is for support.
func TestCleanUpTo(t *testing.T) {
	c := newCleaner(nil)
	for text, want := range map[string]string{
		"export TOKEN=a SECRET b\nx":        "export TOKEN=[secret]\nx",
		"set TOKEN=a SECRET b\r\nx":         "set TOKEN=[secret]\r\nx",
		"Environment=TOKEN=a SECRET b":      "Environment=TOKEN=[secret]",
		"- TOKEN=a SECRET b ,\n":            "- TOKEN=[secret] ,\n",
		"run TOKEN=SECRET b":                "run TOKEN=[secret] b",
		"password: |\n  SECRET\n\n  b\nx":   "password: [secret]\nx",
		" password: >\n  SECRET\n x: SEC":   " password: [secret]\n x: SEC",
		"password: |\n  SECRET":             "password: [secret]",
		`{"tokens":["SECRET"],"x":["b"]}`:   `{"tokens":"[secret]","x":["b"]}`,
		`{"secret":{"a":["SECRET"]},"x":1}`: `{"secret":"[secret]","x":1}`,
		"tokens=[a\nb":                      "tokens=[secret]\nb",
		"token=\nx":                         "token=\nx",
		"token=":                            "token=",
		"token=\r\nx":                       "token=\r\nx",
		`{"password":""}`:                   `{"password":""}`,
		"f(token=, b)":                      "f(token=, b)",
		"--token SECRET b":                  "--token [secret] b",
		"tool --token |\n  b":               "tool --token [secret]\n  b",
		"password: |SECRET\n  b":            "password: [secret]\n  b",
		`{"pin":"a\\","x":"b"}`:             `{"pin":"[secret]","x":"b"}`,
		`"{\"pin\":\"a\\\\\",\"x\":\"b\"}"`: `"{\"pin\":\"[secret]\",\"x\":\"b\"}"`,
	} {
		if got := c.text(text); got != want {
			t.Errorf("%q\nbecomes %q\nwant    %q", text, got, want)
		}
	}
}

// FuzzClean: whatever a text is, cleaning ends, and a password behind its name is gone.
func FuzzClean(f *testing.F) {
	for _, s := range []string{`{"a":"b"}`, "password: |\n  x", `--token "`, `'password' => '`, "\\\"", "secret=[", "secret={\n"} {
		f.Add(s)
	}
	c := newCleaner(nil)
	f.Fuzz(func(t *testing.T, s string) {
		if strings.Contains(s, "hunter2") {
			return
		}
		got := c.text(s + "\npassword=hunter2\n")
		if strings.Contains(got, "hunter2") && !strings.Contains(s, "\\") {
			t.Errorf("%q", got)
		}
	})
}
