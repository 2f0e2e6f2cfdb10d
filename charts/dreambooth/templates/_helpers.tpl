{{- /* Names. With the release name `dreambooth` the parts are dreambooth-operator, dreambooth-minio, … */}}
{{- define "dreambooth.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- /* The name of a part: (list $ "minio"). */}}
{{- define "dreambooth.name" -}}
{{- printf "%s-%s" (include "dreambooth.fullname" (index . 0)) (index . 1) -}}
{{- end -}}

{{- /* A part's host name inside the cluster: (list $ "minio"). */}}
{{- define "dreambooth.host" -}}
{{- printf "%s.%s.svc" (include "dreambooth.name" .) (index . 0).Release.Namespace -}}
{{- end -}}

{{- /* Labels that select a part's pods, and never change: (list $ "minio"). */}}
{{- define "dreambooth.selector" -}}
app.kubernetes.io/name: dreambooth
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- /* All labels of a part: (list $ "minio"). */}}
{{- define "dreambooth.labels" -}}
{{ include "dreambooth.selector" . }}
app.kubernetes.io/version: {{ (index . 0).Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ (index . 0).Release.Service }}
helm.sh/chart: {{ printf "%s-%s" (index . 0).Chart.Name ((index . 0).Chart.Version | replace "+" "_") }}
{{- end -}}

{{- /* The name of an image: (list $ "trainer"). A digest wins over a tag; an empty tag is the chart's appVersion. */}}
{{- define "dreambooth.image" -}}
{{- $root := index . 0 -}}
{{- $image := index $root.Values.images (index . 1) -}}
{{- with $root.Values.images.registry }}{{ trimSuffix "/" . }}/{{ end -}}
{{- $image.repository -}}
{{- if $image.digest }}@{{ $image.digest }}{{ else }}:{{ $image.tag | default $root.Chart.AppVersion }}{{ end -}}
{{- end -}}

{{- define "dreambooth.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "dreambooth.name" (list . "operator")) -}}
{{- else -}}
{{- .Values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end -}}

{{- /* Where MLflow is: the bundled one unless the store names another; empty when there is none. */}}
{{- define "dreambooth.mlflowUri" -}}
{{- if .Values.store.mlflowUri -}}
{{- .Values.store.mlflowUri -}}
{{- else if .Values.mlflow.enabled -}}
http://{{ include "dreambooth.host" (list . "mlflow") }}:5000
{{- end -}}
{{- end -}}
