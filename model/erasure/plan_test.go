package erasure

import (
	"slices"
	"testing"
)

func TestChain(t *testing.T) {
	var everything []Method
	for _, m := range methods() {
		everything = append(everything, m.name)
	}
	slices.Reverse(everything)
	nvme := []Method{NVMeFormatUser, NVMeSanitizeBlock, NVMeSanitizeCrypto}
	sata := []Method{ATASecurityNormal, ATASanitizeOverwrite, ATASecurityEnhanced}
	sas := []Method{SCSIFormatUnit, SCSISanitizeOverwrite}
	for what, c := range map[string]struct {
		offer Offer
		want  []Method
	}{
		"NVMe": {Offer{Methods: nvme, Media: Flash, Path: Direct},
			[]Method{NVMeSanitizeCrypto, NVMeSanitizeBlock, NVMeFormatUser, Overwrite}},
		"SATA": {Offer{Methods: sata, Path: Direct},
			[]Method{ATASanitizeOverwrite, ATASecurityEnhanced, ATASecurityNormal, Overwrite}},
		"behind USB":      {Offer{Methods: sata, Path: USB}, []Method{ATASanitizeOverwrite, Overwrite}},
		"SAS, flash":      {Offer{Methods: sas, Media: Flash, Path: Direct}, []Method{SCSISanitizeOverwrite, SCSIFormatUnit, Overwrite}},
		"SAS, rotating":   {Offer{Methods: sas, Media: Rotating, Path: Direct}, []Method{SCSISanitizeOverwrite, Overwrite, SCSIFormatUnit}},
		"a volume":        {Offer{Methods: sas, Media: Rotating, Path: RAID}, []Method{Overwrite}},
		"virtio":          {Offer{Path: Virtual}, []Method{Overwrite}},
		"eMMC":            {Offer{Methods: []Method{MMCSanitize}, Path: Direct}, []Method{MMCSanitize, Overwrite}},
		"a part":          {Offer{Methods: nvme, Path: Direct, Part: true}, []Method{Overwrite}},
		"locked":          {Offer{Methods: everything, Path: Direct, Locked: true}, nil},
		"locked, a part":  {Offer{Methods: everything, Path: Direct, Locked: true, Part: true}, nil},
		"says revert":     {Offer{Path: Direct, Methods: []Method{TCGRevert}}, []Method{Overwrite}},
		"says overwrite":  {Offer{Path: Direct, Methods: []Method{Overwrite}}, []Method{Overwrite}},
		"says what it is": {Offer{Path: Direct, Methods: []Method{"format-c"}}, []Method{Overwrite}},
	} {
		if got := Chain(c.offer); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", what, got, c.want)
		}
	}
}

func TestNext(t *testing.T) {
	nvme := []Method{NVMeSanitizeCrypto, NVMeSanitizeBlock, NVMeFormatUser, Overwrite}
	sas := []Method{SCSISanitizeBlock, SCSIFormatUnit, Overwrite}
	for what, c := range map[string]struct {
		chain []Method
		tries []Try
		want  Method
	}{
		"the first":                     {nvme, nil, NVMeSanitizeCrypto},
		"after a refusal":               {nvme, []Try{{NVMeSanitizeCrypto, false}}, NVMeSanitizeBlock},
		"after a failure":               {nvme, []Try{{NVMeSanitizeCrypto, true}}, NVMeSanitizeBlock},
		"after all refusals":            {nvme, []Try{{NVMeSanitizeCrypto, false}, {NVMeSanitizeBlock, false}}, NVMeFormatUser},
		"in failure mode, and the last": {nvme, []Try{{NVMeSanitizeCrypto, true}, {NVMeSanitizeBlock, true}}, ""},
		"in failure mode, then refused": {nvme, []Try{{NVMeSanitizeCrypto, true}, {NVMeSanitizeBlock, false}}, ""},
		"after a Format that failed": {nvme,
			[]Try{{NVMeSanitizeCrypto, false}, {NVMeSanitizeBlock, false}, {NVMeFormatUser, true}}, Overwrite},
		"SAS in failure mode":             {sas, []Try{{SCSISanitizeBlock, true}}, ""},
		"after FORMAT UNIT":               {sas, []Try{{SCSISanitizeBlock, false}, {SCSIFormatUnit, true}}, Overwrite},
		"after an ATA Sanitize":           {[]Method{ATASanitizeBlock, ATASecurityNormal}, []Try{{ATASanitizeBlock, true}}, ""},
		"nothing that could be tried":     {nil, nil, ""},
		"nothing that was not tried":      {[]Method{Overwrite}, []Try{{Overwrite, true}}, ""},
		"an eMMC whose sanitize did fail": {[]Method{MMCSanitize, Overwrite}, []Try{{MMCSanitize, true}}, Overwrite},
	} {
		if got, ok := Next(c.chain, c.tries); got != c.want || ok != (c.want != "") {
			t.Errorf("%s: %q, want %q", what, got, c.want)
		}
	}
}
