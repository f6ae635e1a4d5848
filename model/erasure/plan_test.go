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
		"behind USB":    {Offer{Methods: sata, Path: USB}, []Method{ATASanitizeOverwrite, Overwrite}},
		"SAS, flash":    {Offer{Methods: sas, Media: Flash, Path: Direct}, []Method{SCSISanitizeOverwrite, SCSIFormatUnit, Overwrite}},
		"SAS, rotating": {Offer{Methods: sas, Media: Rotating, Path: Direct}, []Method{SCSISanitizeOverwrite, Overwrite, SCSIFormatUnit}},
		"a volume":      {Offer{Methods: sas, Media: Rotating, Path: RAID}, []Method{Overwrite}},
		"virtio":        {Offer{Path: Virtual}, []Method{Overwrite}},
		"eMMC":          {Offer{Methods: []Method{MMCSanitize}, Path: Direct}, []Method{MMCSanitize, Overwrite}},
		"eMMC, both": {Offer{Methods: []Method{MMCSecureErase, MMCSanitize}, Path: Direct},
			[]Method{MMCSanitize, MMCSecureErase, Overwrite}},
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
