package bmc_test

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"gprovision/hw/bmc"
	"gprovision/hw/bmc/simulator"
)

const password = "a good password"

// setUp gives the user its password and has it proved.
func setUp(ctx context.Context, c *bmc.Controller) error {
	u, err := c.SetUser(ctx, 1, "operator", password)
	if err != nil {
		return err
	}
	return c.TestPassword(ctx, u.ID, password)
}

// TestFaults is what a password that is not one leads to, by the fault of the controller.
func TestFaults(t *testing.T) {
	silent := errors.New("the bus is stuck")
	for name, tc := range map[string]struct {
		faults simulator.Faults
		want   error
		says   string
	}{
		"none":                   {},
		"refuses the password":   {faults: simulator.Faults{RefusePassword: true}, says: "Set User Password"},
		"keeps half of it":       {faults: simulator.Faults{Keep: 8}, want: bmc.ErrNoProof},
		"keeps all but one byte": {faults: simulator.Faults{Keep: len(password) - 1}, want: bmc.ErrNoProof},
		"forgets it":             {faults: simulator.Faults{Forget: true}, want: bmc.ErrPassword},
		"says yes to all":        {faults: simulator.Faults{TestLies: true}, want: bmc.ErrNoProof},
		"says yes, and forgets":  {faults: simulator.Faults{TestLies: true, Forget: true}, want: bmc.ErrNoProof},
		"does not know the test": {faults: simulator.Faults{NoTest: true}, want: bmc.ErrNoTest},
		"has no account":         {faults: simulator.Faults{Full: true}, want: bmc.ErrFull},
		"does not answer":        {faults: simulator.Faults{Silent: silent}, want: silent},
		"is busy":                {faults: simulator.Faults{Busy: 9}},
		"is busy for ever":       {faults: simulator.Faults{Busy: 1 << 20}, says: "busy"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := simulator.New()
				s.Faults = tc.faults
				err := setUp(t.Context(), s.Open())
				switch {
				case tc.want == nil && tc.says == "":
					if err != nil {
						t.Error(err)
					}
				case tc.want != nil && !errors.Is(err, tc.want), err == nil, !strings.Contains(err.Error(), tc.says):
					t.Errorf("got %v, want %v %s", err, tc.want, tc.says)
				}
				if err != nil && strings.Contains(err.Error(), password) {
					t.Errorf("the password is in the error: %v", err)
				}
			})
		})
	}
}

// TestCutOff cuts setting the user off behind each of its commands. Done again it ends in the same state, with one account, and an account
// that is enabled has the new password.
func TestCutOff(t *testing.T) {
	whole := simulator.New()
	if err := setUp(t.Context(), whole.Open()); err != nil {
		t.Fatal(err)
	}
	want, _ := whole.Account("operator")
	calls := len(whole.Asked())
	if calls < 10 {
		t.Fatalf("only %d commands: %q", calls, whole.Asked())
	}
	for n := range calls {
		s := simulator.New()
		c := s.Open()
		cut, left := errors.New("cut"), n
		c.Exchange = func(ctx context.Context, netFn, command byte, data []byte) ([]byte, error) {
			if left--; left < 0 {
				return nil, cut
			}
			return s.Exchange(ctx, netFn, command, data)
		}
		if err := setUp(t.Context(), c); !errors.Is(err, cut) {
			t.Errorf("cut off after %d: %v", n, err)
		}
		if a, ok := s.Account("operator"); ok && a.Enabled && a != want {
			t.Errorf("cut off after %d: the account is enabled as %+v", n, a)
		}
		if err := setUp(t.Context(), s.Open()); err != nil {
			t.Errorf("cut off after %d, and done again: %v", n, err)
		}
		if got, _ := s.Account("operator"); got != want {
			t.Errorf("cut off after %d, and done again: %+v, want %+v", n, got, want)
		}
		users, err := s.Open().Users(t.Context(), 1)
		if err != nil || len(users) != simulator.Accounts || slices.ContainsFunc(users[3:], func(u bmc.User) bool { return u.Name != "" }) {
			t.Errorf("cut off after %d: users %+v, %v", n, users, err)
		}
	}
}

func TestChoose(t *testing.T) {
	users := []bmc.User{{ID: 1}, {ID: 2, Name: "root", Fixed: true}, {ID: 3, Fixed: true}, {ID: 4, Enabled: true}, {ID: 5},
		{ID: 6, Name: "operator"}}
	for name, want := range map[string]byte{"operator": 6, "root": 2, "new": 5} {
		if u, err := bmc.Choose(users, name); err != nil || u.ID != want {
			t.Errorf("%s gets %+v, %v, want %d", name, u, err, want)
		}
	}
	if u, err := bmc.Choose(users[:4], "new"); !errors.Is(err, bmc.ErrFull) {
		t.Errorf("an account is found where none is free: %+v, %v", u, err)
	}
}

// TestLimits: names and passwords that have no place are refused before anything is asked for.
func TestLimits(t *testing.T) {
	s := simulator.New()
	for _, tc := range [][2]string{{"", password}, {strings.Repeat("n", 17), password}, {"operator", ""},
		{"operator", strings.Repeat("p", 21)}} {
		if _, err := s.Open().SetUser(t.Context(), 1, tc[0], tc[1]); err == nil {
			t.Errorf("%q passes", tc)
		}
	}
	if asked := s.Asked(); len(asked) > 0 {
		t.Errorf("it was asked for %q", asked)
	}
	for _, n := range []int{1, 16, 17, 20} {
		p := strings.Repeat("p", n)
		u, err := s.Open().SetUser(t.Context(), 1, strings.Repeat("n", 16), p)
		if err == nil {
			err = s.Open().TestPassword(t.Context(), u.ID, p)
		}
		if err != nil {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

func TestDisable(t *testing.T) {
	s := simulator.New()
	if err := s.Open().Login(t.Context(), simulator.Address(), "ADMIN", "ADMIN"); err != nil {
		t.Fatal(err)
	}
	if err := s.Open().DisableUser(t.Context(), 1, 2); err != nil {
		t.Error(err)
	}
	if err := s.Open().Login(t.Context(), simulator.Address(), "ADMIN", "ADMIN"); !errors.Is(err, bmc.ErrPassword) {
		t.Errorf("it logs in: %v", err)
	}
	s = simulator.New()
	s.Faults.Stubborn = true
	if err := s.Open().DisableUser(t.Context(), 1, 2); err == nil {
		t.Error("an account that stays enabled counts as disabled")
	}
}

func TestLog(t *testing.T) {
	for name, f := range map[string]simulator.Faults{"still": {}, "events arrive": {Arrives: 3}, "takes its time": {Erasing: 5}} {
		synctest.Test(t, func(t *testing.T) {
			s := simulator.New()
			s.Faults = f
			records, n, err := s.Open().Log(t.Context(), 100)
			if err != nil || n != 3 || len(records) != 3 || !strings.HasPrefix(records[2].String(), "3 2023-09-12T06:06:56Z 0300") {
				t.Errorf("%s: %d records, %v, %v", name, n, records, err)
			}
			if err := s.Open().ClearLog(t.Context()); err != nil || s.Events() != 0 {
				t.Errorf("%s: %v, %d events stay", name, err, s.Events())
			}
			if records, n, err := s.Open().Log(t.Context(), 100); err != nil || n != 0 || len(records) != 0 {
				t.Errorf("%s: %d records, %v, %v", name, n, records, err)
			}
		})
	}
	for name, f := range map[string]simulator.Faults{"events without end": {Arrives: 100}, "never done": {Erasing: 1000}} {
		synctest.Test(t, func(t *testing.T) {
			s := simulator.New()
			s.Faults = f
			if err := s.Open().ClearLog(t.Context()); err == nil {
				t.Errorf("%s: the log counts as cleared", name)
			}
		})
	}
}

func TestMachine(t *testing.T) {
	s := simulator.New()
	c, ctx := s.Open(), t.Context()
	if i, err := c.Inventory(ctx); err != nil || i.ProductSerial != "S-0001" || i.BoardPart != "P-7" {
		t.Errorf("inventory %+v, %v", i, err)
	}
	lans, err := c.LANs(ctx)
	want := bmc.LAN{Channel: 1, MAC: simulator.MAC, Address: simulator.Address(), Mask: netip.MustParseAddr("255.255.255.0"),
		Gateway: netip.MustParseAddr("192.0.2.1"), Source: "dhcp", VLAN: 42, Access: "always"}
	if err != nil || len(lans) != 1 || lans[0] != want {
		t.Errorf("ports %+v, %v", lans, err)
	}
	if err := c.SetPowerRestore(ctx, bmc.TurnOn); err != nil || s.Restore() != bmc.TurnOn {
		t.Errorf("power: %v, %v", err, s.Restore())
	}
	for _, d := range []time.Duration{time.Hour, 0} {
		if err := c.Identify(ctx, d); err != nil || s.Light() != (d > 0) {
			t.Errorf("light %t, %v", s.Light(), err)
		}
	}
	s.Faults = simulator.Faults{NoLAN: true, NoInventory: true}
	if lans, err := c.LANs(ctx); err != nil || len(lans) > 0 {
		t.Errorf("ports %+v, %v", lans, err)
	}
	if _, err := c.Inventory(ctx); !errors.Is(err, bmc.ErrNoInventory) {
		t.Errorf("inventory: %v", err)
	}
}

func TestAnnounced(t *testing.T) {
	none := func(int) bool { return false }
	acpi := fstest.MapFS{"bus/acpi/devices/IPI0001:00/status": &fstest.MapFile{}}
	for name, got := range map[string]bool{
		"SMBIOS": bmc.Announced(fstest.MapFS{}, func(n int) bool { return n == 38 }), "ACPI": bmc.Announced(acpi, none),
		"not at all": !bmc.Announced(fstest.MapFS{}, none),
	} {
		if !got {
			t.Errorf("%s: it is not so", name)
		}
	}
	if bmc.Ready(fstest.MapFS{}) || !bmc.Ready(fstest.MapFS{"class/ipmi/ipmi0/dev": &fstest.MapFile{}}) {
		t.Error("what the kernel offers is not seen")
	}
	if c, err := bmc.Open(t.TempDir() + "/ipmi0"); !errors.Is(err, bmc.ErrNone) {
		t.Errorf("a device that is not there opens: %v, %v", c, err)
	}
}
