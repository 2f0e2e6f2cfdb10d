{{- /* The token by which the operator knows the gateways of its own release: a file in both. */}}
{{- define "dreambooth.gatewayToken.secret" -}}
{{- .Values.gateway.tokenSecret | default (include "dreambooth.name" (list . "gateway")) -}}
{{- end -}}

{{- define "dreambooth.gatewayToken.file" -}}
/etc/dreambooth/gateway/token
{{- end -}}

{{- define "dreambooth.gatewayToken.mount" -}}
- name: gateway
  mountPath: {{ include "dreambooth.gatewayToken.file" . | dir }}
  readOnly: true
{{- end -}}

{{- define "dreambooth.gatewayToken.volume" -}}
- name: gateway
  secret:
    secretName: {{ include "dreambooth.gatewayToken.secret" . }}
    items:
      - key: token
        path: {{ include "dreambooth.gatewayToken.file" . | base }}
{{- end -}}

{{- /* Where clients find the gateways: the first part of every model's URL. */}}
{{- define "dreambooth.gatewayUrl" -}}
{{- if .Values.gateway.enabled -}}
{{- .Values.gateway.url | default (printf "http://%s" (include "dreambooth.host" (list . "gateway"))) | trimSuffix "/" -}}
{{- end -}}
{{- end -}}
