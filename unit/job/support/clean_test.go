package support

import (
	"encoding/json"
	"strings"
	"testing"
)

// TestClean has passwords in every form in which they get into logs, configuration and command lines. HUNTER is the secret, and nothing
// of it stays. It looks like no name of a secret.
func TestClean(t *testing.T) {
	c := newCleaner(nil)
	for _, text := range []string{
		// Addresses.
		`proxy=http://joe:HUNTER@proxy.example:3128/`, `HTTPS://joe:HUNTER@x/`, `smb://DOM;joe:HUNTER@srv/share`, `url "ftp://:HUNTER@x"`, `https://HUNTER@github.example/x.git`,
		`GET /v1?token=HUNTER&x=1`, `https://x/?a=1&password=HUNTER`, `redis://:HU/NTER@x:1`, `postgres://u:HUNTER@db/x?sslmode=off`,
		// JSON, also inside of JSON.
		`{"password":"HUNTER"}`, `{"password": "a HUNTER b"}`, `{"password":"a\"HUNTER"}`, `{"adminPassword" : "HUNTER", "x": 1}`, `{"msg":"set {\"password\":\"a HUNTER b\"}"}`,
		`{"tokens":["HUNTER","HUNTER"]}`, `{"api_key":"HUNTER"}`, `{"apiKey":"HUNTER"}`, `{"clientSecret":"HUNTER"}`, `{"secret":{"a":"HUNTER"}}`, `{"cmd":["tool","--password","HUNTER"]}`,
		`{"msg":"set {\"password\":\"a\\\"HUNTER\"}"}`, `{"msg":"{\"msg\":\"{\\\"pin\\\":\\\"\\\\\\\"HUNTER\\\"}\"}"}`,
		`{"tokens":["a]HUNTER"]}`, `{"password":"token=HUNTER"}`,
		`{"password":"eyJhbGciOi.HUNTERHUNTER.HUNTERHUNTER HUNTER"}`, `tokens=["HUNTER`, `password="HUNTER`, "password=\"a\\\nHUNTER\"",
		// YAML.
		"password: HUNTER\n", "wifi:\n  password: a HUNTER b\n", "password: 'a HUNTER'", `password: "a HUNTER"`, "password: |\n  HUNTER\n  HUNTER\nuser: x\n", "- password: >-\n    HUNTER\n\n    HUNTER\n", "  db_pass: HUNTER HUNTER\n", "access-points:\n  \"net\": {password: HUNTER}\n", "password: |HUNTER", "password: >HUNTER b", "password: -HUNTER",
		// ini and the like.
		"password = a HUNTER b", "Password=HUNTER", "wpa_passphrase=HUNTER", "\tpsk=\"a HUNTER b\"", "\tpsk=HUNTER", "sae_password=HUNTER", "wep_key0=HUNTER", "PrivateKey=HUNTER=", "PresharedKey = HUNTER=",
		"[WireGuard]\nPrivateKey=HUNTER\n", "Server=x;User=y;Pwd=HUNTER;Db=z", "$cfg['password'] = 'HUNTER';", "'password' => 'a HUNTER b',", "pin=HUNTER", "snmp community: HUNTER", "rocommunity HUNTER default\n", "com2sec me 10.0.0.0/8 HUNTER\n",
		// Hashes.
		"root:$6$HUNTERsalt$HUNTERHUNTER:19000:0:99999:7:::", "admin:$y$j9T$HUNTERHUNTER$HUNTERHUNTER:19000::::::", "old:HUNTERHUNTER:19000:0:99999:7:::", "x:$apr1$HUNTERaa$HUNTERHUNTER", "u:{SSHA}HUNTERHUNTER=", "joe:1001:aad3b435b51404eeaad3b435b51404ee:31d6cfe0d16ae931b73c59d7e0c089c0:::", "u:{SHA512-CRYPT}$6$HUNTERaa$HUNTERHUNTER",
		// Requests.
		"Authorization: Bearer HUNTER", "Authorization: Basic HUNTER==", "authorization: Digest username=\"x\", response=\"HUNTER\"", "Proxy-Authorization: HUNTER", "AUTHORIZATION: HUNTER", "Cookie: a=HUNTER; b=HUNTER", "Set-Cookie: session=HUNTER; Path=/",
		"> X-Auth-Token: HUNTER", "X-Api-Key: HUNTER", `{"headers":{"Authorization":["Token HUNTER"],"Cookie":["a=HUNTER; b=HUNTER"]}}`, `header "Authorization: Token HUNTER"`, `map[Authorization:[Token HUNTER]]`,
		// Command lines.
		"tool --password HUNTER --verbose", "tool --password=HUNTER", "tool --password 'a HUNTER b' x", `tool --token "a HUNTER"`, "tool -password HUNTER", "tool --admin-pass HUNTER", `["tool" "--password" "HUNTER"]`, `argv=["tool", "--secret", "HUNTER"]`,
		"curl -u joe:HUNTER https://x", "curl --user joe:HUNTER x", "wget --user=joe --password=HUNTER", "sshpass -p HUNTER ssh x", "ipmitool -H x -U admin -P HUNTER chassis", "ipmitool user set password 2 HUNTER 20", "mysql -u root -pHUNTER db", "openssl rsa -passin pass:HUNTER",
		"export DB_PASSWORD='a HUNTER b'", "export TOKEN=HUNTER", "PGPASSWORD=HUNTER psql", "Environment=API_TOKEN=HUNTER", "aws_secret_access_key=HUNTER", `env="DB_PASSWORD=HUNTER"`,
		// netrc, keys, tokens, XML.
		"machine h login joe password HUNTER", "machine h\n  login joe\n  password HUNTER\n", "default login x password HUNTER", "-----BEGIN OPENSSH PRIVATE KEY-----\nHUNTER\nHUNTER\n-----END OPENSSH PRIVATE KEY-----", "-----BEGIN PGP PRIVATE KEY BLOCK-----\nHUNTER\n-----END PGP PRIVATE KEY BLOCK-----",
		"-----BEGIN EC PRIVATE KEY-----\nHUNTER", `"key":"-----BEGIN RSA PRIVATE KEY-----\nHUNTER\n-----END RSA PRIVATE KEY-----\n"`, "AGE-SECRET-KEY-1HUNTERHUNTER", "RWRTYEIyHUNTERHUNTERHUNTERHUNTERHUNTER",
		"private key: HUNTER", "eyJhbGciOi.HUNTERHUNTER.HUNTERHUNTER", "ghp_HUNTERHUNTERHUNTER", "AKIAHUNTERHUNTER00", "<password>HUNTER</password>", "<adminPassword type=\"x\">HUNTER</adminPassword>", `<user name="x" password="HUNTER"/>`,
		`time=1 level=INFO msg=x password=HUNTER next=1`, `level=INFO msg="password is HUNTERLESS" token="a HUNTER"`, "password:\tHUNTER", "passphrase := HUNTER", "enrol=HUNTER mfgurl=x",
	} {
		got := c.text(text)
		if strings.Contains(strings.ReplaceAll(got, "HUNTERLESS", ""), "HUNTER") {
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
		"export TOKEN=a HUNTER b\nx":        "export TOKEN=[secret]\nx",
		"set TOKEN=a HUNTER b\r\nx":         "set TOKEN=[secret]\r\nx",
		"Environment=TOKEN=a HUNTER b":      "Environment=TOKEN=[secret]",
		"- TOKEN=a HUNTER b ,\n":            "- TOKEN=[secret] ,\n",
		"run TOKEN=HUNTER b":                "run TOKEN=[secret] b",
		"password: |\n  HUNTER\n\n  b\nx":   "password: [secret]\nx",
		" password: >\n  HUNTER\n x: SEC":   " password: [secret]\n x: SEC",
		"password: |\n  HUNTER":             "password: [secret]",
		`{"tokens":["HUNTER"],"x":["b"]}`:   `{"tokens":"[secret]","x":["b"]}`,
		`{"secret":{"a":["HUNTER"]},"x":1}`: `{"secret":"[secret]","x":1}`,
		"tokens=[a":                         "tokens=[secret]",
		"password: |":                       "password: [secret]",
		"password=\"a\\\\\nb":               "password=\"[secret]\nb",
		"tokens=[a\nb":                      "tokens=[secret]\nb",
		"token=\nx":                         "token=\nx",
		"token=":                            "token=",
		"token=\r\nx":                       "token=\r\nx",
		`{"password":""}`:                   `{"password":""}`,
		"f(token=, b)":                      "f(token=, b)",
		"--token HUNTER b":                  "--token [secret] b",
		"tool --token |\n  b":               "tool --token [secret]\n  b",
		"password: |HUNTER\n  b":            "password: [secret]\n  b",
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
